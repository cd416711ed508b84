//! The tokenizers of sacrebleu 2.5.1. A tokenized line has its tokens between whitespace.

use std::borrow::Cow;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::{Rewriting, is_space, put};

/// How BLEU tokenizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokenization {
    /// As mteval-v13a, the WMT's: punctuation apart but in numbers.
    #[default]
    V13a,
    /// As mteval-v14 with international tokenization: all of Unicode's punctuation and symbols apart.
    Intl,
    /// Chinese characters each by itself, the rest as `13a`.
    Zh,
    /// Each character but whitespace.
    Char,
    /// At whitespace alone, for texts that are tokenized already.
    None,
}

impl Tokenization {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::V13a, Self::Intl, Self::Zh, Self::Char, Self::None];

    /// sacrebleu's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::Intl => "intl",
            Self::Zh => "zh",
            Self::Char => "char",
            Self::None => "none",
        }
    }

    /// The tokenized line.
    pub fn line(self, text: &str) -> Cow<'_, str> {
        let text = text.trim_end_matches(is_space);
        match self {
            Self::V13a => v13a(text).into(),
            Self::Intl => intl(text).into(),
            Self::Zh => zh(text).into(),
            Self::Char => text.chars().flat_map(|c| [c, ' ']).collect::<String>().into(),
            Self::None => text.into(),
        }
    }
}

fn v13a(text: &str) -> String {
    // One after another: `&amp;lt;` becomes `<`.
    let written =
        [("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")];
    let mut line = Cow::Borrowed(text);
    for (from, to) in written {
        if line.contains(from) {
            line = line.replace(from, to).into();
        }
    }
    western(&format!(" {line} "))
}

fn western(line: &str) -> String {
    let mut line = Rewriting::of(line);
    line.space_around(|c| matches!(c, '{'..='~' | '['..='`' | '!'..='&' | '('..='+' | ':'..='@' | '/'));
    // Points and commas, but within numbers.
    line.sub(&['.', ','], |text, at, out| match text[at..] {
        [before, mark @ ('.' | ','), ..] if !before.is_ascii_digit() => put(out, 2, &[before, ' ', mark, ' ']),
        _ => 0,
    });
    line.sub(&['.', ','], |text, at, out| match text[at..] {
        [mark @ ('.' | ','), after, ..] if !after.is_ascii_digit() => put(out, 2, &[' ', mark, ' ', after]),
        _ => 0,
    });
    line.sub(&['-'], |text, at, out| match text[at..] {
        [digit, '-', ..] if digit.is_ascii_digit() => put(out, 2, &[digit, ' ', '-', ' ']),
        _ => 0,
    });
    line.finish()
}

fn intl(text: &str) -> String {
    let is = |c: char, group| c.general_category_group() == group;
    // Most characters are of ASCII, and the tables are slow.
    let number = |c: char| if c.is_ascii() { c.is_ascii_digit() } else { is(c, GeneralCategoryGroup::Number) };
    let symbol = |c: char| match c.is_ascii() {
        true => "$+<=>^`|~".contains(c),
        false => is(c, GeneralCategoryGroup::Symbol),
    };
    let mark = |c: char| match c.is_ascii() {
        true => c.is_ascii_punctuation() && !symbol(c),
        false => is(c, GeneralCategoryGroup::Punctuation),
    };
    let mut line = Rewriting::of(text);
    line.sub_anywhere(|text, at, out| match text[at..] {
        [before, c, ..] if !number(before) && mark(c) => put(out, 2, &[before, ' ', c, ' ']),
        _ => 0,
    });
    line.sub_anywhere(|text, at, out| match text[at..] {
        [c, after, ..] if mark(c) && !number(after) => put(out, 2, &[' ', c, ' ', after]),
        _ => 0,
    });
    line.space_around(symbol);
    line.finish()
}

fn zh(text: &str) -> String {
    let mut line = Rewriting::of(text.trim_matches(is_space));
    line.space_around(is_chinese);
    western(&line.finish())
}

/// sacrebleu's list, but for what is in it twice. Python reads its `\u20000` to `\u2a6d6` as U+2000 to U+2A6D, with a digit behind.
fn is_chinese(c: char) -> bool {
    let listed = [
        '\u{2001}'..='\u{2a6d}',
        '\u{2e80}'..='\u{2fdf}',
        '\u{2ff0}'..='\u{2fff}',
        '\u{3000}'..='\u{303f}',
        '\u{3100}'..='\u{312f}',
        '\u{31a0}'..='\u{31bf}',
        '\u{31c0}'..='\u{31ef}',
        '\u{3200}'..='\u{33ff}',
        '\u{3400}'..='\u{4db5}',
        '\u{4e00}'..='\u{9fbb}',
        '\u{f900}'..='\u{fa2d}',
        '\u{fa30}'..='\u{fa6a}',
        '\u{fa70}'..='\u{fad9}',
        '\u{fe10}'..='\u{fe1f}',
        '\u{fe30}'..='\u{fe4f}',
        '\u{ff00}'..='\u{ffef}',
    ];
    listed.iter().any(|range| range.contains(&c))
}

//! NLTK's `word_tokenize(text, preserve_line=True)`: its `NLTKWordTokenizer` (3.9.1), the Penn Treebank's rules with more quotes.
//! Nothing is split into sentences, so that of the points that end sentences only the last of a text is a token of its own.

use super::{Rewriting, is_space, is_word, put, split};

/// The tokens of a text.
pub fn word_tokenize(text: &str) -> Vec<String> {
    let mut line = Rewriting::of(text);
    starting_quotes(&mut line);
    punctuation(&mut line);
    line.space_around(|c| "[](){}<>".contains(c));
    line.sub(&['-'], |text, at, out| match text[at..] {
        ['-', '-', ..] => put(out, 2, &[' ', '-', '-', ' ']),
        _ => 0,
    });
    line.text.insert(0, ' ');
    line.text.push(' ');
    ending_quotes(&mut line);
    contractions(&mut line);
    split(&line.finish()).map(String::from).collect()
}

fn starting_quotes(line: &mut Rewriting) {
    line.sub(&['«', '“', '‘', '„', '`'], |text, at, out| match text[at] {
        quote @ ('«' | '“' | '‘' | '„') => put(out, 1, &[' ', quote, ' ']),
        '`' => {
            let run = text[at..].iter().take_while(|&&c| c == '`').count();
            out.push(' ');
            out.extend(&text[at..at + run]);
            put(out, run, &[' '])
        }
        _ => 0,
    });
    if line.text.first() == Some(&'"') {
        line.text.splice(..1, ['`', '`']);
    }
    line.sub(&['`'], |text, at, out| match text[at..] {
        ['`', '`', ..] => put(out, 2, &[' ', '`', '`', ' ']),
        _ => 0,
    });
    line.sub(&['"', '\''], |text, at, out| match text[at..] {
        [c @ (' ' | '(' | '[' | '{' | '<'), '"', ..] => put(out, 2, &[c, ' ', '`', '`', ' ']),
        [c @ (' ' | '(' | '[' | '{' | '<'), '\'', '\'', ..] => put(out, 3, &[c, ' ', '`', '`', ' ']),
        _ => 0,
    });
    // A quote before a word of a single letter, unless the two are the end of a contraction.
    line.sub(&['\''], |text, at, out| match text[at..] {
        ['\'', letter, ref rest @ ..]
            if is_word(letter) && !is_any(letter, "mtsdn") && rest.first().is_none_or(|&c| !is_word(c)) =>
        {
            put(out, 2, &['\'', ' ', letter])
        }
        _ => 0,
    });
}

fn punctuation(line: &mut Rewriting) {
    last_point(line, "])}>\"'»”’ ", true);
    line.sub(&[':', ','], |text, at, out| match text[at..] {
        [mark @ (':' | ','), after, ..] if !is_decimal(after) => put(out, 2, &[' ', mark, ' ', after]),
        _ => 0,
    });
    line.sub(&[':', ','], |text, at, out| match text[at..] {
        [mark @ (':' | ',')] | [mark @ (':' | ','), '\n'] => put(out, 1, &[' ', mark, ' ']),
        _ => 0,
    });
    line.sub(&['.'], |text, at, out| match text[at..].iter().take_while(|&&c| c == '.').count() {
        0 | 1 => 0,
        run => {
            out.push(' ');
            out.extend(&text[at..at + run]);
            put(out, run, &[' '])
        }
    });
    line.space_around(|c| matches!(c, ';' | '@' | '#' | '$' | '%' | '&'));
    last_point(line, "])}>\"'", false);
    line.space_around(|c| matches!(c, '?' | '!'));
    line.sub(&['\''], |text, at, out| match text[at..] {
        [before, '\'', ' ', ..] if before != '\'' => put(out, 3, &[before, ' ', '\'', ' ']),
        _ => 0,
    });
    line.space_around(|c| c == '*');
}

/// The point that ends the text, behind which are closing marks and whitespace alone, becomes a token; with `apart` the marks
/// are one of their own.
fn last_point(line: &mut Rewriting, closing: &str, apart: bool) {
    let text = &mut line.text;
    let Some(point) = text.iter().rposition(|&c| c == '.') else { return };
    let marks = text[point + 1..].iter().take_while(|&&c| closing.contains(c)).count();
    let ends = text[point + 1 + marks..].iter().all(|&c| is_space(c));
    if point == 0 || text[point - 1] == '.' || !ends {
        return;
    }
    text.truncate(point + 1 + marks);
    text.push(' ');
    if apart {
        text.insert(point + 1, ' ');
    }
    text.insert(point, ' ');
}

fn ending_quotes(line: &mut Rewriting) {
    line.space_around(|c| matches!(c, '»' | '”' | '’'));
    line.sub(&['\''], |text, at, out| match text[at..] {
        ['\'', '\'', ..] => put(out, 2, &[' ', '\'', '\'', ' ']),
        _ => 0,
    });
    line.sub(&['"'], |text, at, out| match text[at] {
        '"' => put(out, 1, &[' ', '\'', '\'', ' ']),
        _ => 0,
    });
    line.sub_anywhere(|text, at, out| match text[at..].iter().take_while(|&&c| is_space(c)).count() {
        0 => 0,
        run => put(out, run, &[' ']),
    });
    line.sub(&['\''], |text, at, out| match text[at..] {
        [' ' | '\'', ..] => 0,
        [before, '\'', c @ ('s' | 'S' | 'm' | 'M' | 'd' | 'D'), ' ', ..] => put(out, 4, &[before, ' ', '\'', c, ' ']),
        [before, '\'', ' ', ..] => put(out, 3, &[before, ' ', '\'', ' ']),
        _ => 0,
    });
    line.sub(&['\''], |text, at, out| match text[at..] {
        [before, a, b, c, ' ', ..] if !matches!(before, ' ' | '\'') && CLITICS.contains(&[a, b, c]) => {
            put(out, 5, &[before, ' ', a, b, c, ' '])
        }
        _ => 0,
    });
}

const CLITICS: [[char; 3]; 8] = [
    ['\'', 'l', 'l'],
    ['\'', 'L', 'L'],
    ['\'', 'r', 'e'],
    ['\'', 'R', 'E'],
    ['\'', 'v', 'e'],
    ['\'', 'V', 'E'],
    ['n', '\'', 't'],
    ['N', '\'', 'T'],
];

/// Words that are two, after Robert MacIntyre.
fn contractions(line: &mut Rewriting) {
    const WORDS: [(&str, &str); 8] = [
        ("can", "not"),
        ("d", "'ye"),
        ("gim", "me"),
        ("gon", "na"),
        ("got", "ta"),
        ("lem", "me"),
        ("more", "'n"),
        ("wan", "na"),
    ];
    line.sub_anywhere(|text, at, out| {
        let begins = is_word(text[at]) && (at == 0 || !is_word(text[at - 1]));
        let found = WORDS.iter().filter(|_| begins).find_map(|&(first, second)| {
            let end = spelled(text, at, first, second)?;
            // `wanna` only before whitespace.
            (first != "wan" || is_space(*text.get(end)?)).then_some((at + first.len(), end))
        });
        found.map_or(0, |(middle, end)| two(text, at, middle, end, out))
    });
    for second in ["is", "was"] {
        line.sub(&['\''], |text, at, out| match text[at] {
            ' ' => spelled(text, at + 1, "'t", second).map_or(0, |end| 1 + two(text, at + 1, at + 3, end, out)),
            _ => 0,
        });
    }
}

/// Where the word ends that is spelled so from `at`, if it ends there.
fn spelled(text: &[char], at: usize, first: &str, second: &str) -> Option<usize> {
    let end = at + first.len() + second.len();
    let here = text.get(at..end)?;
    let same = here.iter().zip(first.chars().chain(second.chars())).all(|(&c, letter)| is(c, letter));
    (same && text.get(end).is_none_or(|&c| !is_word(c))).then_some(end)
}

fn two(text: &[char], begin: usize, middle: usize, end: usize, out: &mut Vec<char>) -> usize {
    out.push(' ');
    out.extend(&text[begin..middle]);
    out.push(' ');
    out.extend(&text[middle..end]);
    put(out, end - begin, &[' '])
}

/// Whether it is this letter to Python, where case is ignored.
fn is(c: char, letter: char) -> bool {
    c.to_ascii_lowercase() == letter || matches!((c, letter), ('ſ', 's') | ('İ' | 'ı', 'i'))
}

fn is_any(c: char, letters: &str) -> bool {
    letters.chars().any(|letter| is(c, letter))
}

/// Python's `\d`.
fn is_decimal(c: char) -> bool {
    use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
    c.is_ascii_digit() || (!c.is_ascii() && c.general_category() == GeneralCategory::DecimalNumber)
}

//! Ratings as people and products write them: numbers, words, thumbs, stars, shares.

/// A rating that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rating {
    pub value: f64,
    pub kind: Kind,
}

/// Ratings of different kinds do not belong into one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A number.
    Number,
    /// A number with a decimal comma.
    Comma,
    /// Yes or no, in some word: 1 or 0.
    Word,
    /// `4 stars`, that is 4.
    Stars,
    /// `4/5` or `80%`, that is 0.8.
    Share,
}

/// What a written rating says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Written {
    /// Nothing was rated: an empty text, `NaN`, `null`, `N/A`.
    Nothing,
    /// It can be read in one way only.
    Clear(Rating),
    /// `1,250` with a decimal comma, which may as well separate thousands.
    EitherComma(f64),
    /// Neither a number nor a known word.
    Unknown,
}

/// Words for 1 and for 0, in small letters and without spaces, `_` and `-`.
const WORDS: [(&[&str], f64); 2] = [
    (
        &[
            "👍", "thumbsup", "thumbup", "up", "upvote", "upvoted", "like", "liked", "good", "positive", "yes", "y",
            "true", "t",
        ],
        1.0,
    ),
    (
        &[
            "👎",
            "thumbsdown",
            "thumbdown",
            "down",
            "downvote",
            "downvoted",
            "dislike",
            "disliked",
            "bad",
            "negative",
            "no",
            "n",
            "false",
            "f",
        ],
        0.0,
    ),
];

/// Reads a rating. It may have spaces around it; letters count alike in either case, thumbs in any tone of skin.
pub(super) fn read(text: &str) -> Written {
    let text = text.trim().replace('\u{2212}', "-");
    let lower = text.to_lowercase();
    if ["", "nan", "none", "null", "nil", "n/a", "na", "#n/a", "<na>", "-", "--", "\\n"].contains(&lower.as_str()) {
        return Written::Nothing;
    }
    if let Some(value) = word(&lower) {
        return Written::Clear(Rating { value, kind: Kind::Word });
    }
    let clear = |value: f64, kind| Written::Clear(Rating { value, kind });
    if let Some(share) = share(&lower) {
        return clear(share, Kind::Share);
    }
    if let Some(stars) = stars(&lower) {
        return clear(stars, Kind::Stars);
    }
    match number(&lower) {
        Some((value, false)) => clear(value, Kind::Number),
        Some((value, true)) if separates_thousands(&lower) => Written::EitherComma(value),
        Some((value, true)) => clear(value, Kind::Comma),
        None => Written::Unknown,
    }
}

fn word(lower: &str) -> Option<f64> {
    let plain = |c: &char| !matches!(c, ' ' | '_' | '-' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}');
    // `:+1:` and `:thumbsup:` are how chats write thumbs.
    let name = match lower {
        ":+1:" => "👍".into(),
        ":-1:" => "👎".into(),
        other => other.trim_matches(':').chars().filter(plain).collect::<String>(),
    };
    WORDS.iter().find_map(|(words, value)| words.contains(&name.as_str()).then_some(*value))
}

/// A finite number and whether it has a decimal comma.
fn number(text: &str) -> Option<(f64, bool)> {
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | ',' | 'e');
    if !text.chars().all(digits) {
        return None;
    }
    let comma = text.contains(',');
    if comma && (text.contains('.') || text.matches(',').count() > 1) {
        return None;
    }
    let value: f64 = text.replace(',', ".").parse().ok()?;
    value.is_finite().then_some((value, comma))
}

/// Whether the comma of a number may separate thousands: one to three digits before it, no leading zero, three behind.
fn separates_thousands(text: &str) -> bool {
    let Some((whole, rest)) = text.trim_start_matches(['+', '-']).split_once(',') else { return false };
    (1..=3).contains(&whole.len()) && !whole.starts_with('0') && rest.len() == 3
}

fn share(lower: &str) -> Option<f64> {
    if let Some(percent) = lower.strip_suffix('%').or_else(|| lower.strip_suffix("percent")) {
        return Some(number(percent.trim())?.0 / 100.0);
    }
    let (part, of) = lower.split_once('/').or_else(|| lower.split_once(" out of "))?;
    let of = of.trim().trim_end_matches("stars").trim_end();
    let (part, of) = (number(part.trim())?.0, number(of)?.0);
    (of > 0.0 && (0.0..=of).contains(&part)).then_some(part / of)
}

fn stars(lower: &str) -> Option<f64> {
    let drawn: Vec<char> = lower.chars().filter(|c| !matches!(c, '\u{fe0f}' | ' ')).collect();
    if !drawn.is_empty() && drawn.iter().all(|c| matches!(c, '★' | '⭐' | '🌟' | '☆')) {
        return Some(drawn.iter().filter(|c| **c != '☆').count() as f64);
    }
    let counted = ["stars", "star", "★", "⭐"].iter().find_map(|name| lower.strip_suffix(name))?;
    Some(number(counted.trim_end_matches([' ', '-']))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_has_its_value() {
        for (texts, value, kind) in [
            (
                &["👍", "👍🏽", "Thumbs_Up", "THUMBS-UP", ":+1:", "up", "Like", "good", "TRUE", " yes "][..],
                1.0,
                Kind::Word,
            ),
            (&["👎🏿", "thumbs down", "DISLIKE", "Bad", "negative", "False", "no", "downvote"], 0.0, Kind::Word),
            (&["4.5", " 4.5 ", "+4.5", "45e-1"], 4.5, Kind::Number),
            (&["-1", "\u{2212}1"], -1.0, Kind::Number),
            (&["4,5", "04,50", "4,5000"], 4.5, Kind::Comma),
            (&["4/5", "4 / 5", "80%", "80 %", "80,0 %", "4 out of 5", "4/5 stars"], 0.8, Kind::Share),
            (&["4 stars", "4 Stars", "4-star", "★★★★☆", "⭐⭐⭐⭐", "4 ★"], 4.0, Kind::Stars),
        ] {
            for text in texts {
                assert_eq!(read(text), Written::Clear(Rating { value, kind }), "{text}");
            }
        }
        for nothing in ["", "  ", "NaN", "None", "null", "N/A", "-"] {
            assert_eq!(read(nothing), Written::Nothing, "{nothing}");
        }
        assert_eq!(read("1,250"), Written::EitherComma(1.25));
        assert_eq!(read("0,250"), Written::Clear(Rating { value: 0.25, kind: Kind::Comma }));
        for unknown in
            ["neutral", "inf", "-Infinity", "1.234,5", "1,234,567", "6/5", "1/0", "4/5/2024", "1e999", "stars"]
        {
            assert_eq!(read(unknown), Written::Unknown, "{unknown}");
        }
    }
}

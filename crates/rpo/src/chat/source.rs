//! What is seen to in a template's text before its engine reads it.

use std::collections::BTreeSet;

use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;

type Tokens<'a> = [(Token<'a>, Span)];

/// `source` with blocks that hide nothing in the place of `{% generation %}`, which tells transformers what the model itself
/// writes; what is set inside does not reach outside, as there. What is no Jinja stays as it is, for the engine to say so.
///
/// # Errors
/// If a namespace is taken as a value, with the line: one that is put into itself would be printed or compared without end.
pub(super) fn prepared(source: &str, syntax: SyntaxConfig) -> Result<String, String> {
    let Ok(tokens) = tokenize(source, false, syntax).collect::<Result<Vec<_>, _>>() else {
        return Ok(source.to_string());
    };
    namespaces_stay_apart(&tokens)?;
    let (mut out, mut done) = (String::new(), 0);
    for pair in tokens.windows(2) {
        let [(Token::BlockStart, _), (Token::Ident(word), place)] = pair else { continue };
        let instead = match *word {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        out.push_str(&source[done..place.start_offset as usize]);
        out.push_str(instead);
        done = place.end_offset as usize;
    }
    Ok(out + &source[done..])
}

/// Refuses namespaces that are made anywhere but in `{% set NAME = namespace(...) %}`, and their names where neither something
/// in them is named (`NAME.x`, `NAME['x']`) nor they are tested or set anew: so none gets into a list, a macro or itself.
fn namespaces_stay_apart<'a>(tokens: &Tokens<'a>) -> Result<(), String> {
    // What is behind a dot is in something else.
    let word = |at: usize| -> Option<&'a str> {
        match tokens.get(at.wrapping_sub(1)..=at) {
            Some([(Token::Dot, _), _]) => None,
            Some([_, (Token::Ident(word), _)]) => Some(*word),
            _ => None,
        }
    };
    let all = |wanted| (0..tokens.len()).filter(move |at| word(*at) == Some(wanted));
    let mut names = BTreeSet::new();
    for at in all("namespace") {
        match tokens.get(at.wrapping_sub(4)..at) {
            Some([(Token::BlockStart, _), (Token::Ident("set"), _), (Token::Ident(name), _), (Token::Assign, _)])
                if is_a_call_to_the_end(&tokens[at + 1..]) =>
            {
                names.insert(*name);
            }
            _ => {
                return Err(line(
                    tokens,
                    at,
                    "makes a namespace in another way than `{% set NAME = namespace(...) %}`",
                ));
            }
        }
    }
    for name in names {
        let is_free = |at: &usize| {
            !matches!(
                tokens.get(at + 1),
                Some((Token::Dot | Token::BracketOpen | Token::Assign | Token::Ident("is"), _))
            )
        };
        if let Some(at) = all(name).find(is_free) {
            return Err(line(
                tokens,
                at,
                &format!("takes the namespace `{name}` for a value; only what is in it is one"),
            ));
        }
    }
    Ok(())
}

/// Whether there are arguments in brackets and then the end of the block.
fn is_a_call_to_the_end(tokens: &Tokens<'_>) -> bool {
    let mut depth = 0_usize;
    for (at, (token, _)) in tokens.iter().enumerate() {
        match token {
            Token::ParenOpen => depth += 1,
            Token::ParenClose if depth == 1 => return matches!(tokens.get(at + 1), Some((Token::BlockEnd, _))),
            Token::ParenClose => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    false
}

fn line(tokens: &Tokens<'_>, at: usize, problem: &str) -> String {
    format!("line {} of the chat template {problem}", tokens[at].1.start_line)
}

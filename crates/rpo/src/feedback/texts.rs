//! The user's own texts of held-out prompts, which are not kept while data are read: found in the file a second time.

use std::collections::HashMap;

use super::{PromptGroup, ReadOptions, Source, Split, read_rows};
use crate::error::{Error, Result};

/// The texts of `split.validation`'s prompts as they stand in the file that was read, in the order of the groups: with
/// their line breaks, and with what no token stands for or lies behind the limit of tokens.
///
/// A group is the `i`-th different prompt of the file, `i` counting the groups of both parts by their responses' rows; no
/// group may have been dropped since the file was read.
///
/// # Errors
/// If the file cannot be read or holds another number of prompts than were read.
pub fn held_out_prompts(source: &Source, options: &ReadOptions, split: &Split) -> Result<Vec<String>> {
    let row = |group: &PromptGroup| group.responses.first().map(|r| r.row);
    let (read, held_out) = (&split.train.groups, &split.validation.groups);
    let mut rows: Vec<_> = read.iter().chain(held_out).map(row).collect();
    rows.sort_unstable();
    let place: HashMap<_, usize> = rows.iter().enumerate().map(|(place, row)| (*row, place)).collect();
    let wanted: HashMap<usize, usize> = held_out.iter().enumerate().map(|(i, group)| (place[&row(group)], i)).collect();

    let mut texts = vec![String::new(); held_out.len()];
    let mut seen = std::collections::HashSet::new();
    for feedback in read_rows(source, options)? {
        let prompt = feedback?.prompt;
        if seen.insert(blake3::hash(prompt.as_bytes()))
            && let Some(&i) = wanted.get(&(seen.len() - 1))
        {
            texts[i] = prompt;
        }
    }
    match seen.len() == rows.len() {
        true => Ok(texts),
        false => Err(Error::Data(format!(
            "{source}: it held {} different prompts when it was read first and holds {} now; leave it as it is meanwhile",
            rows.len(),
            seen.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::{FeedbackSet, Response};

    /// A group whose first response has this row; the prompt's ids say nothing of its text.
    fn group(row: usize) -> PromptGroup {
        let response = Response { row, ids: vec![5, 1], truncated: false, reward: 0.0, copies: 1 };
        PromptGroup { prompt: vec![2, 1], prompt_truncated: false, responses: vec![response] }
    }

    #[test]
    fn each_group_finds_its_own_text_though_all_have_the_same_tokens() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("x.jsonl");
        let texts = ["a\n{b}", "a {b}", "a\n{b}", "c  d", "a\t{b}"];
        let line = |text| format!("{}\n", serde_json::json!({"prompt": text, "response": "yes", "reward": 1}));
        std::fs::write(&path, texts.map(line).concat()).expect("write");
        // Groups of the file, the third line being the first prompt's second response: rows 0, 2, 3, 4.
        let set = |rows: &[usize]| FeedbackSet { groups: rows.iter().map(|&row| group(row)).collect() };
        let split = Split { train: set(&[2]), validation: set(&[0, 3, 4]) };
        let found = held_out_prompts(&path.as_path().into(), &ReadOptions::default(), &split).expect("readable");
        assert_eq!(found, ["a\n{b}", "c  d", "a\t{b}"]);

        let fewer = Split { train: FeedbackSet::default(), ..split };
        let said =
            held_out_prompts(&path.as_path().into(), &ReadOptions::default(), &fewer).expect_err("changed").to_string();
        assert!(said.contains("held 3 different prompts") && said.contains("holds 4 now"), "{said}");
    }
}

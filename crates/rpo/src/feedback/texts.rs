//! The user's own texts of held-out prompts, which are not kept while data are read: found in the file a second time.

use std::collections::HashMap;

use super::{FeedbackSet, ReadOptions, Source, read_rows};
use crate::error::{Error, Result};

/// The texts of `held_out`'s prompts as they stand in `source`, in the order of the groups: with their line breaks, and with
/// what no token stands for or lies behind the limit of tokens. Where several texts are the same to the model, the first.
///
/// # Errors
/// If the source cannot be read or has fewer rows than it had.
pub fn held_out_prompts(source: &Source, options: &ReadOptions, held_out: &FeedbackSet) -> Result<Vec<String>> {
    let mut wanted: HashMap<usize, Vec<usize>> = HashMap::new();
    held_out.groups.iter().enumerate().for_each(|(i, group)| wanted.entry(group.first_row).or_default().push(i));
    let mut texts = vec![None; held_out.groups.len()];
    for (row, feedback) in read_rows(source, options)?.enumerate() {
        let feedback = feedback?;
        if let Some(groups) = wanted.get(&row) {
            groups.iter().for_each(|&i| texts[i] = Some(feedback.prompt.clone()));
        }
    }
    let texts: Option<Vec<String>> = texts.into_iter().collect();
    texts.ok_or_else(|| {
        Error::Data(format!("{source}: it has fewer rows now than when it was read first; leave it as it is meanwhile"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::PromptGroup;

    #[test]
    fn each_group_finds_the_text_of_its_own_row() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("x.jsonl");
        let texts = ["a\n{b}", "a {b}", "a\n{b}", "c  d", "a\t{b}"];
        let line = |text| format!("{}\n", serde_json::json!({"prompt": text, "response": "yes", "reward": 1}));
        std::fs::write(&path, texts.map(line).concat()).expect("write");
        let group = |first_row| PromptGroup { prompt: vec![2, 1], first_row, responses: Vec::new() };
        let held_out = |rows: &[usize]| FeedbackSet { groups: rows.iter().map(|&row| group(row)).collect() };
        let find = |rows| held_out_prompts(&path.as_path().into(), &ReadOptions::default(), &held_out(rows));
        assert_eq!(find(&[4, 0, 3]).expect("readable"), ["a\t{b}", "a\n{b}", "c  d"]);
        let said = find(&[0, 5]).expect_err("changed").to_string();
        assert!(said.contains("fewer rows now"), "{said}");
    }
}

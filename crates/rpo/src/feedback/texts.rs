//! The user's own texts of held-out prompts, which are not kept while data are read: found in the file a second time.

use std::collections::HashMap;

use super::{FeedbackSet, Limits, ReadOptions, Source, read_rows};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// The texts of `held_out`'s prompts as they stand in `source`, in the order of the groups: with their line breaks, and with
/// what no token stands for or lies behind the limit of tokens. Where several texts are the same to the model, the first.
///
/// # Errors
/// If the source cannot be read or has other prompts there than when it was read with this tokenizer and these limits.
pub fn held_out_prompts(
    source: &Source,
    options: &ReadOptions,
    tokenizer: &Tokenizer,
    limits: Limits,
    held_out: &FeedbackSet,
) -> Result<Vec<String>> {
    let mut wanted: HashMap<usize, Vec<usize>> = HashMap::new();
    held_out.groups.iter().enumerate().for_each(|(i, group)| wanted.entry(group.first_row).or_default().push(i));
    let mut texts = vec![None; held_out.groups.len()];
    for (row, feedback) in read_rows(source, options)?.enumerate() {
        let prompt = feedback?.prompt;
        let Some(groups) = wanted.get(&row) else { continue };
        let ids = tokenizer.ask(&prompt, limits.prompt_tokens, limits.cut_prompts)?.ids;
        for &i in groups.iter().filter(|&&i| held_out.groups[i].prompt == ids) {
            texts[i] = Some(prompt.text().into_owned());
        }
    }
    let texts: Option<Vec<String>> = texts.into_iter().collect();
    let changed =
        || format!("{source}: it has other rows now than when it was read first; leave it as it is meanwhile");
    texts.ok_or_else(|| Error::Data(changed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::PromptGroup;
    use crate::tokenizer::Cut;

    #[test]
    fn each_group_finds_the_text_of_its_own_row() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("x.jsonl");
        let texts = ["a\n{b}", "a {b}", "a\n{b}", "c  d", "a\t{b}"];
        let line = |text| format!("{}\n", serde_json::json!({"prompt": text, "response": "yes", "reward": 1}));
        std::fs::write(&path, texts.map(line).concat()).expect("write");
        let tokenizer = crate::tokenizer::tests::words();
        let limits = Limits { prompt_tokens: 9, response_tokens: 9, cut_prompts: Cut::End };
        let ids = |row: usize| tokenizer.prompt(texts[row], 9, Cut::End).expect("encodes").ids;
        let group = |first_row| PromptGroup { prompt: ids(first_row), first_row, responses: Vec::new() };
        let held_out = |rows: &[usize]| FeedbackSet { groups: rows.iter().map(|&row| group(row)).collect() };
        let source = Source::from(path.as_path());
        let find =
            |rows: &[usize]| held_out_prompts(&source, &ReadOptions::default(), &tokenizer, limits, &held_out(rows));
        assert_eq!(find(&[4, 0, 3]).expect("readable"), ["a\t{b}", "a\n{b}", "c  d"]);
        let moved = FeedbackSet { groups: vec![PromptGroup { first_row: 3, ..group(0) }] };
        let said = held_out_prompts(&source, &ReadOptions::default(), &tokenizer, limits, &moved).expect_err("changed");
        assert!(said.to_string().contains("other rows now"), "{said}");
    }
}

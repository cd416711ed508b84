//! Which of many files are the data to train on, by their names alone: the same for a directory and for a repository of the hub.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::records::is_data;
use super::extension;

/// Files to read, in order.
#[derive(Debug)]
pub(super) struct Choice {
    pub files: Vec<String>,
    /// What is read and what was left out, if anything was.
    pub said: Option<String>,
}

/// Files that `datasets` and the hub keep beside the data.
const ABOUT_DATA: [&str; 6] =
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "croissant.json"];

/// Words in names that say what a file is for.
const TRAIN: [&str; 2] = ["train", "training"];
const HELD_OUT: [&str; 10] =
    ["test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation", "heldout", "holdout"];

/// Chooses among `names`, paths with slashes: data files only; those for training if they are told apart; those at the top (or in
/// `data` or `default`) rather than deeper ones.
///
/// # Errors
/// If there is none, or several sets or formats between which only the user can choose, or part of a set is missing.
pub(super) fn choose(names: &[String]) -> Result<Choice, String> {
    let data: Vec<&String> = names.iter().filter(|name| is_data(Path::new(name)) && !is_beside(name)).collect();
    if data.is_empty() {
        return Err(match names.iter().filter(|name| !is_hidden(name)).take(5).collect::<Vec<_>>().as_slice() {
            [] => "the directory is empty".into(),
            some => format!("no data file in it (jsonl, json, csv, tsv, parquet, arrow), but {}", listed(some)),
        });
    }
    let chosen = nearest(of_training(&data));
    let chosen = one_set(chosen)?;
    one_format(&chosen)?;
    let mut files: Vec<String> = chosen.into_iter().cloned().collect();
    files.sort_by(|a, b| naturally(a, b));
    complete(&files)?;
    let left_out: Vec<&String> = data.into_iter().filter(|name| !files.contains(name)).collect();
    let said = (!left_out.is_empty()).then(|| {
        let read: Vec<&String> = files.iter().collect();
        format!("reading {}; left out: {}", listed(&read), listed(&left_out))
    });
    Ok(Choice { files, said })
}

/// Whether a file or directory is one that its owner hides.
pub(super) fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with(['.', '_']))
}

fn is_beside(name: &str) -> bool {
    let file = file_name(name);
    is_hidden(name)
        || ABOUT_DATA.contains(&file)
        || (file.starts_with("cache-") && extension(Path::new(file)) == "arrow")
}

fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The words of a name in small letters.
fn words(name: &str) -> impl Iterator<Item = String> + '_ {
    name.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

fn is_for(name: &str, what: &[&str]) -> bool {
    words(name).any(|word| what.contains(&word.as_str()))
}

fn of_training<'a>(names: &[&'a String]) -> Vec<&'a String> {
    let only = |keep: &dyn Fn(&str) -> bool| names.iter().copied().filter(|n| keep(n)).collect::<Vec<_>>();
    let train = only(&|name| is_for(name, &TRAIN));
    let not_held_out = only(&|name| !is_for(name, &HELD_OUT));
    [train, not_held_out].into_iter().find(|part| !part.is_empty()).unwrap_or_else(|| names.to_vec())
}

fn nearest(names: Vec<&String>) -> Vec<&String> {
    let in_dir = |dir: &str| names.iter().copied().filter(|n| parent(n) == dir).collect::<Vec<_>>();
    ["", "data", "default"].into_iter().map(in_dir).find(|part| !part.is_empty()).unwrap_or(names)
}

/// Of `train_prefs-*` and `train_sft-*`, which hold the same prompts for different purposes, neither is chosen.
fn one_set(names: Vec<&String>) -> Result<Vec<&String>, String> {
    let purpose = |name: &str| {
        let stem = file_name(name).split('.').next().unwrap_or("");
        let after = words(stem).skip_while(|word| !TRAIN.contains(&word.as_str())).skip(1);
        // Numbers of parts and the hashes after them say nothing of a purpose.
        let is_number = |w: &str| w.chars().all(|c| c.is_ascii_digit() || (w.len() >= 8 && c.is_ascii_hexdigit()));
        let named = after.filter(|w| w != "of" && !is_number(w));
        (parent(name).to_string(), named.collect::<Vec<_>>().join("-"))
    };
    let mut sets: BTreeMap<(String, String), Vec<&String>> = BTreeMap::new();
    names.into_iter().for_each(|name| sets.entry(purpose(name)).or_default().push(name));
    let dirs: BTreeSet<&String> = sets.keys().map(|(dir, _)| dir).collect();
    if dirs.len() == sets.len() {
        return Ok(sets.into_values().flatten().collect());
    }
    if sets.keys().any(|(_, purpose)| purpose.is_empty()) {
        return Ok(sets.into_iter().filter(|((_, purpose), _)| purpose.is_empty()).flat_map(|(_, set)| set).collect());
    }
    let firsts: Vec<&String> = sets.values().map(|set| set[0]).collect();
    Err(format!("several sets to train on ({}); name one, such as its files by a pattern with *", listed(&firsts)))
}

fn one_format(names: &[&String]) -> Result<(), String> {
    let formats: BTreeSet<String> = names.iter().map(|name| extension(Path::new(name))).collect();
    let as_read = |name: &str| name.trim_end_matches(".gz").trim_end_matches(".zst").to_string();
    let distinct: BTreeSet<String> = names.iter().map(|name| as_read(name)).collect();
    match (formats.len() > 1, distinct.len() < names.len()) {
        (false, false) => Ok(()),
        (true, _) => Err(format!(
            "files of several formats ({}), which may hold the same rows; name the ones to read: {}",
            formats.into_iter().collect::<Vec<_>>().join(", "),
            listed(names)
        )),
        (_, true) => {
            Err(format!("the same file with and without compression; name the ones to read: {}", listed(names)))
        }
    }
}

/// Of `train-00000-of-00003.parquet` there must be three.
fn complete(files: &[String]) -> Result<(), String> {
    let mut parts: BTreeMap<(&str, usize), BTreeSet<usize>> = BTreeMap::new();
    for file in files {
        let stem = file_name(file).split('.').next().unwrap_or("");
        let fields: Vec<&str> = stem.split('-').collect();
        let of = fields.iter().rposition(|f| *f == "of").filter(|i| *i > 0 && i + 1 < fields.len());
        if let Some(of) = of
            && let (Ok(part), Ok(all)) = (fields[of - 1].parse(), fields[of + 1].parse())
        {
            let before = file.rfind(&format!("{}-of-", fields[of - 1])).map_or("", |at| &file[..at]);
            parts.entry((before, all)).or_default().insert(part);
        }
    }
    for ((before, all), there) in parts {
        if let Some(missing) = (0..all).find(|part| !there.contains(part) && there.len() < all) {
            return Err(format!(
                "part {missing} (from 0) of the {all} parts {before}* is missing; get it, or name the files"
            ));
        }
    }
    Ok(())
}

/// The first few of `names`.
pub(super) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The order of names in which `part-2` stands before `part-10`.
pub(super) fn naturally(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    while let (Some(x), Some(y)) = (a_rest.chars().next(), b_rest.chars().next()) {
        let ((a_number, a_after), (b_number, b_after)) = (digits(a_rest), digits(b_rest));
        let order = match (a_number.is_empty(), b_number.is_empty()) {
            (false, false) => {
                (a_rest, b_rest) = (a_after, b_after);
                let (m, n) = (a_number.trim_start_matches('0'), b_number.trim_start_matches('0'));
                m.len().cmp(&n.len()).then(m.cmp(n))
            }
            _ => {
                (a_rest, b_rest) = (&a_rest[x.len_utf8()..], &b_rest[y.len_utf8()..]);
                x.cmp(&y)
            }
        };
        if order.is_ne() {
            return order;
        }
    }
    a_rest.len().cmp(&b_rest.len()).then(a.cmp(b))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<(Vec<String>, Option<String>), String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        choose(&names).map(|c| (c.files, c.said))
    }

    #[test]
    fn parts_are_read_in_the_order_of_their_numbers() {
        let (files, said) =
            chosen(&["part-10.csv", "part-9.csv", "part-010.csv", "README.md", ".x.csv"]).expect("files");
        assert_eq!(files, ["part-9.csv", "part-010.csv", "part-10.csv"]);
        assert_eq!(said, None);
    }

    #[test]
    fn files_for_training_are_chosen_and_the_others_told() {
        let saved = ["dataset_dict.json", "test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"];
        let (files, said) =
            chosen(&[&saved[..], &["train/state.json", "train/cache-1.arrow"]].concat()).expect("files");
        assert_eq!(files, ["train/data-00000-of-00001.arrow"]);
        assert!(said.expect("said").contains("left out: test/data-00000-of-00001.arrow"));
        let (files, _) = chosen(&["a.jsonl", "dev.jsonl", "b.jsonl"]).expect("files");
        assert_eq!(files, ["a.jsonl", "b.jsonl"]);
        let (files, _) = chosen(&["latest.jsonl", "contest.jsonl"]).expect("words, not letters");
        assert_eq!(files.len(), 2);
        let (files, said) = chosen(&["train.jsonl.gz", "validation.jsonl.gz", "other/train.jsonl.gz"]).expect("files");
        assert_eq!(files, ["train.jsonl.gz"]);
        assert!(said.expect("said").contains("other/train.jsonl.gz"));
        let (files, _) =
            chosen(&["helpful/train.jsonl.gz", "harmless/train.jsonl.gz", "helpful/test.jsonl.gz"]).expect("both");
        assert_eq!(files, ["harmless/train.jsonl.gz", "helpful/train.jsonl.gz"]);
    }

    #[test]
    fn what_only_the_user_can_decide_is_an_error() {
        let sets = ["data/train_prefs-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"];
        assert!(chosen(&sets).expect_err("two sets").contains("several sets to train on (data/train_prefs-"));
        assert!(chosen(&["a.csv", "a.parquet"]).expect_err("two formats").contains("several formats (csv, parquet)"));
        assert!(chosen(&["a.csv", "a.csv.gz"]).expect_err("twice").contains("with and without compression"));
        let parts = ["train-00000-of-00003-5ab10fe2.parquet", "train-00002-of-00003-77cdabcd.parquet"];
        assert!(chosen(&parts).expect_err("incomplete").contains("part 1 (from 0) of the 3 parts train-*"));
        assert!(chosen(&["README.md", "x.xlsx"]).expect_err("no data").contains("README.md, x.xlsx"));
        assert!(chosen(&[]).expect_err("empty").contains("empty"));
    }
}

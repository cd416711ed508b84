//! Where a setting comes from, for messages: a line of a file, a flag, or `--set`.

use std::path::Path;

use anyhow::Result;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::schema::Problem;

/// A setting that the command line gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Its dotted name, such as `train.batch-size`.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// What gave it, such as `--batch-size`.
    pub by: String,
}

impl Given {
    /// A setting given by the flag that is made for it.
    pub fn by_flag(name: &str, value: Value) -> Self {
        Self { name: name.into(), value, by: flag_of(name) }
    }
}

/// The flag that is made for a setting.
pub fn flag_of(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    match name {
        "objective.name" => "rpo train NAME".into(),
        "columns.format" | "columns.strict" | "columns.reward-map" => format!("--{last}"),
        _ if name.starts_with("columns.") => format!("--{last}-column"),
        _ if name.starts_with("train.lora.") => format!("--lora-{last}"),
        _ => format!("--{last}"),
    }
}

/// Where settings come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The file, if any.
    pub file: Option<&'a Path>,
    /// What the command line gives over it.
    pub given: &'a [Given],
}

impl<'a> Origin<'a> {
    /// Settings of a file alone.
    pub fn file(path: &'a Path) -> Self {
        Self { file: Some(path), given: &[] }
    }

    /// The file, or that they are settings.
    pub fn name(self) -> String {
        self.file.map_or_else(|| "settings".into(), |path| path.display().to_string())
    }

    /// What sets `name` or a part of it: what gave it on the command line, or file and line.
    fn of(self, name: &str) -> String {
        let within = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some(given) =
            self.given.iter().rev().find(|given| within(&given.name, name) || within(name, &given.name))
        {
            return given.by.clone();
        }
        let text = self.file.and_then(|path| std::fs::read_to_string(path).ok());
        match text.and_then(|text| line_of(&text, name)) {
            Some(line) => format!("{}, line {line}", self.name()),
            None => self.name(),
        }
    }

    /// An error that tells all `problems`, each with where it comes from.
    ///
    /// # Errors
    /// If there is any.
    pub fn refuse(self, problems: &[Problem]) -> Result<()> {
        let said = problems.iter().map(|Problem { name, problem }| format!("{}: {name}: {problem}", self.of(name)));
        let said: Vec<String> = said.collect();
        match said.is_empty() {
            true => Ok(()),
            false => anyhow::bail!(said.join("\n       ")),
        }
    }

    /// `problem`, with where the setting comes from that it complains of, if it was given at all.
    pub fn explain(self, problem: anyhow::Error) -> anyhow::Error {
        let Some(rpo::Error::Setting { field, .. }) = problem.downcast_ref() else { return problem };
        let text = self.file.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let is = |name: &str| name.rsplit('.').next() == Some(field);
        let given = self.given.iter().rev().find(|given| is(&given.name)).map(|given| given.by.clone());
        let written = || {
            let line = names(&text).into_iter().find(|(name, _)| is(name)).map(|(_, line)| line)?;
            Some(format!("{}, line {line}", self.name()))
        };
        match given.or_else(written) {
            // It is named already.
            Some(origin) if origin == flag_of(field) => problem,
            Some(origin) => problem.context(origin),
            None => problem,
        }
    }
}

/// The line, from 1, of a TOML text that sets the longest known part of `name`.
fn line_of(text: &str, name: &str) -> Option<usize> {
    names(text)
        .into_iter()
        .filter(|(set, _)| name.strip_prefix(set.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        .max_by_key(|(set, _)| set.len())
        .map(|(_, line)| line)
}

/// The dotted names that a TOML text sets, tables among them, with their lines.
fn names(text: &str) -> Vec<(String, usize)> {
    fn of_table(text: &str, table: &DeTable<'_>, outer: &str, found: &mut Vec<(String, usize)>) {
        for (key, value) in table {
            let name = format!("{outer}{}", key.get_ref());
            found.push((name.clone(), 1 + text[..key.span().start].matches('\n').count()));
            if let DeValue::Table(inner) = value.get_ref() {
                of_table(text, inner, &format!("{name}."), found);
            }
        }
    }
    let mut found = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        of_table(text, table.get_ref(), "", &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_in_a_file_however_they_are_written() {
        let text = "# model = 3\nmodel = \"m\"\ntrain.epochs = 3\n[train.optimizer]\nlearning-rate = 1\n\n[objective]\nname = \"sft\"\nrows = { above = 2 }\n";
        let line = |name| line_of(text, name);
        assert_eq!(line("model"), Some(2));
        assert_eq!(line("train.epochs"), Some(3));
        assert_eq!(line("train.optimizer.learning-rate"), Some(5));
        assert_eq!(line("objective.rows.above"), Some(9));
        assert_eq!(line("objective.tau"), Some(7), "what is missing is missing in its table");
        assert_eq!(line("out"), None);
    }

    #[test]
    fn what_was_given_last_is_told() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("run.toml");
        std::fs::write(&path, "[train]\nbatch-size = 0\nepochs = 0\n").expect("write");
        let given = [
            Given::by_flag("train.batch-size", Value::Integer(-1)),
            Given { by: "--set train.batch-size".into(), ..Given::by_flag("train.batch-size", Value::Integer(-2)) },
            Given::by_flag("columns.prompt", Value::Integer(1)),
        ];
        let origin = Origin { file: Some(&path), given: &given };
        assert_eq!(origin.of("train.batch-size"), "--set train.batch-size");
        assert_eq!(origin.of("columns.prompt"), "--prompt-column");
        assert!(origin.of("train.epochs").ends_with("run.toml, line 3"));
        let explained = |field| {
            let problem = rpo::Error::Setting { field, problem: "0 is not a positive number".into() };
            format!("{:#}", origin.explain(problem.into()))
        };
        assert!(explained("epochs").contains("run.toml, line 3: "), "{}", explained("epochs"));
        assert!(explained("batch-size").starts_with("--set train.batch-size: batch-size: 0"));
        assert!(explained("patience").starts_with("patience: 0"), "{}", explained("patience"));
    }
}

//! `rpo config`: all settings of a run with what they mean, as a file to begin with or as a schema for editors.

use std::fmt::Write;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::messages::in_lines;
use crate::settings::schema::{Choice, Kind, Node, expected, of_file, properties, tag};

/// Print all settings with their meaning and default, as a TOML file for --config.
///
/// What a run must have is filled with examples; all else is commented out at its default, so that what you uncomment and
/// change is what differs. Flags win over the file.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo config > run.toml
  rpo config --for kto
  rpo config --schema > rpo.schema.json")]
pub struct Arguments {
    /// Settings of this objective alone instead of all of them
    #[arg(long = "for", value_name = "OBJECTIVE", value_parser = crate::train::objectives())]
    objective: Option<String>,
    /// JSON Schema of the file, for editors that complete and check TOML
    #[arg(long, conflicts_with = "objective")]
    schema: bool,
}

/// What a file must have, with an example.
const EXAMPLES: [(&str, &str); 3] =
    [("model", "google/flan-t5-small"), ("data", "ratings.jsonl"), ("out", "runs/first")];

/// Columns of a comment.
const WIDTH: usize = 100;

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    match arguments.schema {
        true => println!("{}", serde_json::to_string_pretty(&of_file())?),
        false => print!("{}", file(arguments.objective.as_deref())?),
    }
    Ok(())
}

/// The file, for one objective or all of them.
fn file(objective: Option<&str>) -> Result<String, std::fmt::Error> {
    let schema = of_file();
    let root = Node::new(&schema);
    let mut out = String::new();
    comment(&mut out, "Settings of rpo train and rpo compare, for --config FILE. Flags win over them.", "")?;
    comment(
        &mut out,
        "Remove the # before a setting to change it. What is commented out is the default; in brackets is what a setting may be that is not set.",
        "",
    )?;
    for table in root.tables() {
        for (name, example) in EXAMPLES {
            let node = root.at(&table["properties"][name]);
            describe(&mut out, node)?;
            writeln!(out, "{name} = {example:?}")?;
        }
        let written = |name: &str| EXAMPLES.iter().any(|(example, _)| *example == name);
        let others =
            || properties(table).filter(|(name, _)| !written(name)).map(|(name, schema)| (name, root.at(schema)));
        // TOML wants the plain settings before the tables.
        for (name, node) in others().filter(|(_, node)| node.tables().is_empty()) {
            setting(&mut out, name, node)?;
        }
        for (name, node) in others().filter(|(_, node)| !node.tables().is_empty()) {
            let only = objective.filter(|_| name == "objective");
            tables(&mut out, name, node, only)?;
        }
    }
    Ok(out)
}

/// A table; if several may stand in its place, each in turn, the first of them or `only` without `#`.
fn tables(out: &mut String, name: &str, node: Node<'_>, only: Option<&str>) -> std::fmt::Result {
    let wanted = |choice: &Choice<'_>| match choice.kind {
        Kind::Table(table) => only.is_none_or(|only| tag(table) == Some(only)),
        _ => false,
    };
    writeln!(out)?;
    comment(out, node.meaning(), "")?;
    for (i, choice) in node.choices().into_iter().filter(wanted).enumerate() {
        let Kind::Table(table) = choice.kind else { continue };
        if i > 0 {
            writeln!(out)?;
            comment(out, "Or:", "")?;
        }
        if let (Some(meaning), Some(_)) = (choice.meaning, tag(table)) {
            comment(out, meaning, "")?;
        }
        let mark = if i > 0 || name == "objectives" { "#" } else { "" };
        writeln!(out, "{mark}[{name}]")?;
        if let Some(tag) = tag(table) {
            writeln!(out, "{mark}name = {tag:?}")?;
        }
        of_table(out, name, table, node)?;
    }
    Ok(())
}

/// What stands in a table.
fn of_table(out: &mut String, name: &str, table: &Map<String, Value>, node: Node<'_>) -> std::fmt::Result {
    let inner = || properties(table).filter(|(name, _)| *name != "name").map(|(name, schema)| (name, node.at(schema)));
    // A table that a word or a number may replace is a value.
    let is_table = |node: &Node<'_>| node.choices().iter().all(|choice| matches!(choice.kind, Kind::Table(_)));
    for (name, node) in inner().filter(|(_, node)| !is_table(node)) {
        setting(out, name, node)?;
    }
    for (inner, node) in inner().filter(|(_, node)| is_table(node)) {
        tables(out, &format!("{name}.{inner}"), node, None)?;
    }
    Ok(())
}

/// A setting that is commented out at its default.
fn setting(out: &mut String, name: &str, node: Node<'_>) -> std::fmt::Result {
    describe(out, node)?;
    match &node.schema["default"] {
        Value::Null if node.words().is_empty() => {
            writeln!(out, "# {name} = ({})", expected(&node.choices()))
        }
        Value::Null => writeln!(out, "# {name} = (one of these)"),
        default => writeln!(out, "#{name} = {default}"),
    }
}

/// What a setting means and may be.
fn describe(out: &mut String, node: Node<'_>) -> std::fmt::Result {
    writeln!(out)?;
    comment(out, node.meaning(), "")?;
    let choices = node.choices();
    for choice in choices.iter().filter(|_| !node.words().is_empty()) {
        let value = match choice.kind {
            Kind::Word(word) => format!("{word:?}"),
            _ => expected(std::slice::from_ref(choice)),
        };
        let meaning = choice.meaning.map(|meaning| format!(": {meaning}")).unwrap_or_default();
        comment(out, &format!("- {value}{meaning}"), "  ")?;
    }
    Ok(())
}

/// A text as comment; all but its first line begin with `indent`.
fn comment(out: &mut String, text: &str, indent: &str) -> std::fmt::Result {
    let text = text.split("\n\n").next().unwrap_or_default();
    writeln!(out, "{}", in_lines(WIDTH, text, "# ", &format!("# {indent}")))
}

#[cfg(test)]
mod tests {
    use rpo::objective::ObjectiveConfig;

    use super::*;
    use crate::settings::{Origin, Settings};

    /// The settings of `text` once every setting in it that is commented out stands there.
    fn uncommented(text: &str) -> toml::Table {
        let lines =
            text.lines().map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n").parse().expect("TOML")
    }

    #[test]
    fn the_file_is_valid_as_it_stands_and_says_the_defaults() {
        for (name, _) in ObjectiveConfig::ALL {
            let text = file(Some(name)).expect("text");
            let settings = Settings::from_table(text.parse().expect("TOML"), Origin::default()).expect("valid");
            assert_eq!(Some(&settings.objective), ObjectiveConfig::named(name).as_ref());
            // The second optimizer, which comes last, stands in the place of the first.
            let mut table = uncommented(&text[..text.find("# Or:").expect("Adafactor")]);
            table.remove("objectives");
            assert_eq!(Settings::from_table(table, Origin::default()).expect("valid"), settings, "{text}");
        }
    }

    #[test]
    fn all_settings_are_there_with_a_meaning() {
        fn names(node: Node<'_>, found: &mut Vec<String>) {
            for table in node.tables() {
                for (name, schema) in properties(table) {
                    assert!(
                        name == "name" || name == "above" || name == "at-least" || schema["description"].is_string(),
                        "{name}"
                    );
                    found.push(name.clone());
                    names(node.at(schema), found);
                }
            }
        }
        let text = file(None).expect("text");
        let (schema, mut all) = (of_file(), Vec::new());
        names(Node::new(&schema), &mut all);
        assert!(all.len() > 50);
        for name in all {
            assert!(text.contains(&name), "{name}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains("[`"), "links of the documentation mean nothing here");
    }
}

//! The JSON Schema of the settings, as the types that hold them tell it: for editors, for `rpo config`, and to say all that is
//! wrong with given settings at once and in plain words.

use std::sync::LazyLock;

use schemars::transform::RecursiveTransform;
use schemars::{Schema, schema_for};
use serde_json::{Map, Value, json};

use super::Settings;

/// The schema of [`Settings`].
static SETTINGS: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = schema_for!(Settings);
    schemars::transform::transform_subschemas(&mut RecursiveTransform(one_line), &mut schema);
    one_line(&mut schema);
    if let Some(Value::Object(cache)) = schema.pointer_mut("/properties/cache") {
        // It is another one for every user.
        cache.remove("default");
    }
    schema.into()
});

/// Joins the lines of each paragraph of a description.
fn one_line(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
}

/// The schema of a file of settings: what flags can give may be missing, and there is what is resolved before the settings.
pub fn of_file() -> Value {
    let mut schema = SETTINGS.clone();
    schema["title"] = "Settings of rpo train and rpo compare".into();
    schema["description"] = "Flags of the command line win over this file.".into();
    schema["properties"]["published"] = json!({
        "description": "Fill what is not set here with what the authors' script of RPO sets.",
        "type": "boolean",
        "default": false
    });
    schema["properties"]["objectives"] = json!({
        "description": "For rpo compare: tables like [objective], by label.",
        "type": "object",
        "additionalProperties": { "type": "object" },
        "default": {}
    });
    if let Value::Object(fields) = &mut schema {
        fields.remove("required");
    }
    schema
}

/// One of the things that a setting may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind<'a> {
    /// This word.
    Word(&'a str),
    /// Any text.
    Text,
    /// A whole number, not below this one.
    Whole(Option<i64>),
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// A list of what this schema says.
    List(&'a Value),
    /// A table with this schema.
    Table(&'a Map<String, Value>),
}

/// One of the things that a setting may be, and what it means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<'a> {
    /// What it is.
    pub kind: Kind<'a>,
    /// What it means, if that is said.
    pub meaning: Option<&'a str>,
}

/// A schema with its definitions, and where in it one is.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    root: &'a Value,
    /// The schema of a setting.
    pub schema: &'a Value,
}

impl<'a> Node<'a> {
    /// A whole schema.
    pub fn new(root: &'a Value) -> Self {
        Self { root, schema: root }
    }

    /// Another part of the same schema.
    pub fn at(self, schema: &'a Value) -> Self {
        Self { schema, ..self }
    }

    /// What the setting means; empty if that is not said.
    pub fn meaning(self) -> &'a str {
        self.schema["description"].as_str().unwrap_or_default()
    }

    /// All that the setting may be, but nothing.
    pub fn choices(self) -> Vec<Choice<'a>> {
        let Some(schema) = self.schema.as_object() else { return Vec::new() };
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let found = name.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return found.map(|schema| self.at(schema).choices()).unwrap_or_default();
        }
        let list = |name: &str| schema.get(name).and_then(Value::as_array).into_iter().flatten();
        let several: Vec<Choice> =
            list("anyOf").chain(list("oneOf")).flat_map(|schema| self.at(schema).choices()).collect();
        if !several.is_empty() {
            return several;
        }
        let meaning = schema.get("description").and_then(Value::as_str);
        let words: Vec<&str> = schema.get("const").into_iter().chain(list("enum")).filter_map(Value::as_str).collect();
        if !words.is_empty() {
            return words.into_iter().map(|word| Choice { kind: Kind::Word(word), meaning }).collect();
        }
        let names = schema.get("type").into_iter().flat_map(|name| match name {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            name => name.as_str().into_iter().collect::<Vec<_>>(),
        });
        let kinds = names.filter_map(|name| match name {
            "string" => Some(Kind::Text),
            "integer" => Some(Kind::Whole(schema.get("minimum").and_then(Value::as_i64))),
            "number" => Some(Kind::Number),
            "boolean" => Some(Kind::Flag),
            "array" => schema.get("items").map(Kind::List),
            "object" => Some(Kind::Table(schema)),
            _ => None,
        });
        kinds.map(|kind| Choice { kind, meaning }).collect()
    }

    /// The words that the setting may be.
    pub fn words(self) -> Vec<&'a str> {
        words(&self.choices())
    }

    /// The tables that the setting may be.
    pub fn tables(self) -> Vec<&'a Map<String, Value>> {
        let tables = self.choices().into_iter().filter_map(|choice| match choice.kind {
            Kind::Table(table) => Some(table),
            _ => None,
        });
        tables.collect()
    }
}

/// The settings of a table.
pub fn properties(table: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    table.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// The `name` that tells a table from the others that may stand in its place.
pub fn tag(table: &Map<String, Value>) -> Option<&str> {
    table.get("properties")?.get("name")?.get("const")?.as_str()
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Its dotted name.
    pub name: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// All that is wrong with settings, but for what is missing.
pub fn problems(settings: &toml::Table) -> Vec<Problem> {
    let mut found = Vec::new();
    check_table(Node::new(&SETTINGS), &Node::new(&SETTINGS).tables(), settings, "", &mut found);
    found
}

fn check(node: Node<'_>, value: &toml::Value, name: &str, found: &mut Vec<Problem>) {
    let tables = node.tables();
    match value {
        toml::Value::Table(table) if !tables.is_empty() => check_table(node, &tables, table, name, found),
        _ if node.choices().iter().any(|choice| fits(node, choice.kind, value)) => {}
        _ => {
            let words = node.words().into_iter();
            let near = value.as_str().and_then(|given| nearest(given, words)).map(did_you_mean).unwrap_or_default();
            let problem = format!("{} is not {}{near}", shown(value), expected(&node.choices()));
            found.push(Problem { name: name.into(), problem });
        }
    }
}

fn fits(node: Node<'_>, kind: Kind<'_>, value: &toml::Value) -> bool {
    match (kind, value) {
        (Kind::Word(word), toml::Value::String(text)) => word == text,
        (Kind::Text, toml::Value::String(_))
        | (Kind::Number, toml::Value::Float(_) | toml::Value::Integer(_))
        | (Kind::Flag, toml::Value::Boolean(_)) => true,
        (Kind::Whole(least), toml::Value::Integer(n)) => least.is_none_or(|least| *n >= least),
        (Kind::List(items), toml::Value::Array(list)) => {
            let choices = node.at(items).choices();
            list.iter().all(|item| choices.iter().any(|choice| fits(node, choice.kind, item)))
        }
        _ => false,
    }
}

fn check_table(
    node: Node<'_>,
    tables: &[&Map<String, Value>],
    given: &toml::Table,
    name: &str,
    found: &mut Vec<Problem>,
) {
    let inside = |inner: &str| if name.is_empty() { inner.into() } else { format!("{name}.{inner}") };
    let tags: Vec<&str> = tables.iter().filter_map(|table| tag(table)).collect();
    let has = |table: &Map<String, Value>, key: &str| properties(table).any(|(name, _)| name == key);
    let meant = match (&tags[..], given.get("name")) {
        ([], _) => tables.iter().find(|table| given.keys().any(|key| has(table, key))).or(tables.first()),
        (_, Some(toml::Value::String(tag_given))) if tags.contains(&tag_given.as_str()) => {
            tables.iter().find(|table| tag(table) == Some(tag_given))
        }
        (tags, given) => {
            let near = given.and_then(toml::Value::as_str).and_then(|given| nearest(given, tags.iter().copied()));
            let near = near.map(did_you_mean).unwrap_or_default();
            let problem = match given {
                Some(given) => format!("{} is not {}{near}", shown(given), one_of(tags)),
                None => format!("it is missing, and is {}", one_of(tags)),
            };
            found.push(Problem { name: inside("name"), problem });
            return;
        }
    };
    let Some(meant) = meant else { return };
    for (key, value) in given {
        let own = properties(meant).find(|(name, _)| *name == key).map(|(_, schema)| schema);
        match own.or(meant.get("additionalProperties").filter(|any| any.is_object())) {
            Some(schema) => check(node.at(schema), value, &inside(key), found),
            None => {
                let names: Vec<&str> = properties(meant).map(|(name, _)| name.as_str()).collect();
                let near = match nearest(key, names.iter().copied()) {
                    Some(near) => did_you_mean(near),
                    None => format!(". There are {}", names.join(", ")),
                };
                let of = tag(meant).map_or_else(String::new, |tag| format!(" of {tag}"));
                found.push(Problem { name: inside(key), problem: format!("there is no such setting{of}{near}") });
            }
        }
    }
}

fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(_) => "a table".into(),
        value => value.to_string(),
    }
}

fn did_you_mean(near: &str) -> String {
    format!(". Did you mean `{near}`?")
}

/// The known name that is nearest to another one, if one is near.
fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &&str| strsim::damerau_levenshtein(wrong, name);
    known.min_by_key(distance).filter(|name| distance(name) <= 1 + wrong.len() / 4)
}

fn one_of(words: &[&str]) -> String {
    match words {
        [word] => format!("`{word}`"),
        words => format!("one of {}", words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn words<'a>(choices: &[Choice<'a>]) -> Vec<&'a str> {
    let words = choices.iter().filter_map(|choice| match choice.kind {
        Kind::Word(word) => Some(word),
        _ => None,
    });
    words.collect()
}

/// What a setting may be, in words.
pub fn expected(choices: &[Choice<'_>]) -> String {
    let words = words(choices);
    let mut said: Vec<String> = if words.is_empty() { Vec::new() } else { vec![one_of(&words)] };
    said.extend(choices.iter().filter_map(|choice| match choice.kind {
        Kind::Word(_) => None,
        Kind::Text => Some("a text".into()),
        Kind::Whole(Some(least)) => Some(format!("a whole number of at least {least}")),
        Kind::Whole(None) => Some("a whole number".into()),
        Kind::Number => Some("a number".into()),
        Kind::Flag => Some("true or false".into()),
        Kind::List(_) => Some("a list".into()),
        Kind::Table(table) => Some(match &properties(table).map(|(name, _)| name.as_str()).collect::<Vec<_>>()[..] {
            [name] => format!("a table with `{name}`"),
            _ => "a table".into(),
        }),
    }));
    match said.pop() {
        Some(last) if !said.is_empty() => format!("{} or {last}", said.join(", ")),
        last => last.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let found = problems(&text.parse().expect("TOML"));
        found.into_iter().map(|Problem { name, problem }| format!("{name}: {problem}")).collect()
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_in_plain_words() {
        let wrong = "modle = \"m\"\nmax-prompt-tokens = -1\nobjective = { name = \"rpo\", tua = 1.0, partition = \"fited\" }\n\
                     truncate-prompts = \"middle\"\ndata = 3\n[train]\nepochs = 1.5\nrecompute = \"yes\"\nbatchsize = 3\n\
                     [train.optimizer.algorithm]\nname = \"adafactor\"\nbeta1 = 0.5\n[columns.reward-map]\nup = \"one\"\n";
        let found = of(wrong);
        for expected in [
            "modle: there is no such setting. Did you mean `model`?",
            "max-prompt-tokens: -1 is not a whole number of at least 0",
            "objective.tua: there is no such setting of rpo. Did you mean `tau`?",
            "objective.partition: \"fited\" is not one of `fitted`, `sum`, `mean`, `sampled`, `batch-mean`. Did you mean \
             `fitted`?",
            "truncate-prompts: \"middle\" is not one of `end`, `start`",
            "data: 3 is not a text or a list",
            "train.epochs: 1.5 is not a whole number of at least 0",
            "train.recompute: \"yes\" is not true or false",
            "train.batchsize: there is no such setting. Did you mean `batch-size`?",
            "train.optimizer.algorithm.beta1: there is no such setting of adafactor. There are clip, decay, epsilon, name",
            "columns.reward-map.up: \"one\" is not a number",
        ] {
            assert!(found.iter().any(|said| said == expected), "{expected}\n{found:#?}");
        }
        assert_eq!(found.len(), 11, "{found:#?}");
    }

    #[test]
    fn what_is_right_has_no_problems() {
        for right in [
            "data = [\"a\", \"b\"]\n[objective]\nname = \"sft\"\nrows = { above = 3 }\n",
            "[objective]\nname = \"kto\"\nthreshold = 3\n",
            "[objective]\nname = \"kto\"\nthreshold = { at-least = 0.5 }\n",
            "[objective]\nname = \"dro\"\ntau = 1\nvalue-learning-rate = 1e-3\n[train]\nmax-steps = 9\n",
        ] {
            assert_eq!(of(right), [""; 0], "{right}");
        }
        assert_eq!(of("[objective]\ntau = 1\n").len(), 1, "no name");
        assert_eq!(
            of("[objective]\nname = \"sft\"\nrows = \"al\"\n"),
            ["objective.rows: \"al\" is not one of `all`, `best` or a table with `above`. Did you mean `all`?"]
        );
    }
}

//! Conversations: who said what, as plain text for models that know no chat, and as a model's own template writes it
//! (`template`). It knows nothing of tokens, files of feedback or models.
//!
//! Plainly, a single turn is its content. Several are written one below the other under the names of who speaks, the system's
//! text before them without a name and parted by an empty line; turns of blanks are left out, but for the last:
//!
//! ```text
//! You are brief.
//!
//! User: Hi
//! Assistant: Hello!
//! User: And grass?
//! ```

mod json;
mod limits;
mod python;
mod source;
mod template;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
pub use template::ChatTemplate;

/// Whether prompts go through the model's chat template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UseTemplate {
    /// Chat messages do and plain texts do not; a model that continues texts and has no template refuses messages.
    #[default]
    Auto,
    /// All do: a plain text is what a user says.
    Always,
    /// None does: chat messages are written out as plain text.
    Never,
}

/// How the prompts of decoder-only models are written; T5 reads plain text in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// Whether prompts go through the model's chat template.
    pub template: UseTemplate,
    /// The day that a template which asks for it is told.
    pub date: Option<NaiveDate>,
}

/// How the prompts of one model are written.
#[derive(Clone, Debug, Default)]
pub enum Writing {
    /// As plain texts.
    #[default]
    Plain,
    /// Texts as they are; messages are refused, since the model in this directory has no template.
    NoTemplate(PathBuf),
    /// Messages by the model's template.
    Template {
        /// The template.
        template: Arc<ChatTemplate>,
        /// Whether texts are written by it too, as what a user says.
        texts: bool,
    },
}

/// A template and what it is to write.
type ByTemplate<'a> = (&'a ChatTemplate, Cow<'a, [Turn]>);

impl Writing {
    /// Whether prompts may go through a template.
    pub fn has_template(&self) -> bool {
        matches!(self, Self::Template { .. })
    }

    /// The turns that the template is to write `prompt` of; none if it is written plainly.
    ///
    /// # Errors
    /// If it is of messages and there is no template for them.
    pub(crate) fn turns<'a>(&'a self, prompt: &'a Prompt) -> Result<Option<ByTemplate<'a>>> {
        match (self, prompt) {
            (Self::Template { template, .. }, Prompt::Turns(turns)) => Ok(Some((template, Cow::Borrowed(turns)))),
            (Self::Template { template, texts: true }, Prompt::Text(text)) => {
                Ok(Some((template, Cow::Owned(vec![Turn::new("user", text)]))))
            }
            (Self::NoTemplate(dir), Prompt::Turns(_)) => Err(Error::Prompt(format!(
                "the prompt is a list of chat messages, and the model in {} has no chat template to write them with; put its \
                 chat_template.jinja there, or let the messages be written out as plain text (--chat-template never)",
                dir.display()
            ))),
            _ => Ok(None),
        }
    }

    /// What the model is given of `prompt`, before any cut.
    ///
    /// # Errors
    /// As [`ChatTemplate::prompt`], and if it is of messages and there is no template for them.
    pub(crate) fn text<'a>(&self, prompt: &'a Prompt) -> Result<Cow<'a, str>> {
        match self.turns(prompt)? {
            Some((template, turns)) => template.prompt(&turns).map(Cow::Owned),
            None => Ok(prompt.text()),
        }
    }
}

/// What somebody said; serialized as a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// `user`, `assistant`, `system`, `tool` or another name.
    pub role: String,
    /// What was said.
    pub text: String,
    /// Whether the message's content is null, as beside tool calls: people read an empty text, templates none.
    pub silent: bool,
    /// The message's other fields, such as `tool_calls`, which some templates read.
    pub more: Map<String, Value>,
}

impl Serialize for Turn {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut message = to.serialize_map(Some(2 + self.more.len()))?;
        message.serialize_entry("role", &self.role)?;
        message.serialize_entry("content", &(!self.silent).then_some(&self.text))?;
        self.more.iter().try_for_each(|(name, value)| message.serialize_entry(name, value))?;
        message.end()
    }
}

impl Turn {
    /// A turn of nothing but a text.
    pub fn new(role: &str, text: &str) -> Self {
        Self { role: role.into(), text: text.into(), silent: false, more: Map::new() }
    }

    /// Whether both say the same; other fields, such as ids, do not matter.
    pub fn says(&self, other: &Self) -> bool {
        self.role == other.role && self.text == other.text
    }
}

/// What is asked; serialized as a text or a list of messages.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prompt {
    /// As a text.
    Text(String),
    /// As a conversation.
    Turns(Vec<Turn>),
}

impl Prompt {
    /// It as people read it: turns are written plainly.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Turns(turns) => Cow::Owned(plain(turns)),
        }
    }

    /// The texts in it, without what is written around them.
    pub(crate) fn said(&self) -> impl Iterator<Item = &str> {
        let (text, turns) = match self {
            Self::Text(text) => (Some(text.as_str()), &[][..]),
            Self::Turns(turns) => (None, &turns[..]),
        };
        text.into_iter().chain(turns.iter().map(|turn| turn.text.as_str()))
    }

    /// Whether nothing is asked.
    pub fn is_blank(&self) -> bool {
        self.said().all(|text| text.trim().is_empty())
    }

    /// How many bytes it says.
    pub(crate) fn size(&self) -> usize {
        self.said().map(str::len).sum()
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Turns as one text, as the head of this file says.
pub fn plain(turns: &[Turn]) -> String {
    let last = turns.len().saturating_sub(1);
    let kept = turns.iter().enumerate().filter(|(i, turn)| *i == last || !turn.text.trim().is_empty());
    let kept: Vec<&Turn> = kept.map(|(_, turn)| turn).collect();
    let (system, spoken) = match &kept[..] {
        [first, rest @ ..] if first.role == "system" && !rest.is_empty() => (Some(&first.text), rest),
        all => (None, all),
    };
    let spoken = match spoken {
        [only] => only.text.clone(),
        several => {
            several.iter().map(|turn| format!("{}: {}", speaker(&turn.role), turn.text)).collect::<Vec<_>>().join("\n")
        }
    };
    system.map_or(spoken.clone(), |system| format!("{system}\n\n{spoken}"))
}

/// What a role is called in plain text.
fn speaker(role: &str) -> &str {
    match role {
        "user" => "User",
        "assistant" => "Assistant",
        "system" => "System",
        "tool" => "Tool",
        other => other,
    }
}

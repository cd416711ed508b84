//! The prompts that models are compared on, and what good answers to them are.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rpo::chat::Prompt;
use rpo::feedback::{Asked, ReadOptions, Source, prompts_fingerprint, read_outputs, read_prompts, read_rows};
use rpo::store::files::write_file;

use super::arguments::Arguments;

/// Prompts, each once.
pub struct Prompts {
    /// Where they come from, as given.
    pub source: String,
    /// As they were asked.
    pub asked: Vec<Prompt>,
    /// As people read them.
    pub texts: Vec<String>,
    /// Good answers to each, as far as any are known.
    pub references: Vec<Vec<String>>,
    /// Hash of them.
    pub fingerprint: String,
}

impl Prompts {
    /// Reads what the arguments name.
    pub fn read(arguments: &Arguments) -> Result<Self> {
        let (source, all) = match (&arguments.prompts, arguments.answers.first()) {
            (Some(files), _) => {
                let source = Source::from(files.clone());
                (files.join(" "), read_prompts(&source, &arguments.prompt_column, None, None)?)
            }
            (None, Some(answers)) => {
                let given = read_outputs(&Source::from(vec![answers.place.clone()]), None, None)?;
                (answers.place.clone(), given.into_iter().map(|given| given.asked).collect())
            }
            (None, None) => bail!("--prompts: name a file of prompts"),
        };
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut asked: Vec<Asked> = Vec::new();
        for prompt in all {
            let text = prompt.prompt.text().trim().to_string();
            if asked.len() < arguments.limit.unwrap_or(usize::MAX) && !places.contains_key(&text) {
                places.insert(text, asked.len());
                asked.push(prompt);
            }
        }
        let references = match &arguments.references {
            Some(files) => references(&Source::from(files.clone()), &places)?,
            None => vec![Vec::new(); asked.len()],
        };
        let fingerprint = prompts_fingerprint(&asked);
        let texts = asked.iter().map(|asked| asked.prompt.text().into_owned()).collect();
        Ok(Self {
            source,
            asked: asked.into_iter().map(|asked| asked.prompt).collect(),
            texts,
            references,
            fingerprint,
        })
    }

    /// Writes them for models to answer, numbered from 0.
    pub fn write(&self, path: &Path) -> Result<()> {
        let line = |(i, prompt): (usize, &Prompt)| format!("{}\n", serde_json::json!({"id": i, "prompt": prompt}));
        let lines: String = self.asked.iter().enumerate().map(line).collect();
        write_file(path, lines.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The responses of `source` to the prompts at `places`; where it rates them, the best ones of each prompt.
fn references(source: &Source, places: &HashMap<String, usize>) -> Result<Vec<Vec<String>>> {
    let mut best: Vec<(f64, Vec<String>)> = vec![(f64::NEG_INFINITY, Vec::new()); places.len()];
    let mut take = |prompt: &Prompt, response: String, reward: f64| {
        let Some(&place) = places.get(prompt.text().trim()) else { return };
        let (so_far, texts) = &mut best[place];
        if reward > *so_far {
            (*so_far, *texts) = (reward, Vec::new());
        }
        if reward == *so_far && !texts.contains(&response) {
            texts.push(response);
        }
    };
    match read_outputs(source, None, None) {
        // What has a response in each record may be rated too.
        Ok(given) if !is_rated(source) => {
            given.into_iter().for_each(|given| take(&given.asked.prompt, given.response, 0.0));
        }
        _ => {
            for row in read_rows(source, &ReadOptions::default()).context("--references")? {
                let row = row.context("--references")?;
                take(&row.prompt, row.response, row.reward);
            }
        }
    }
    let found: Vec<Vec<String>> = best.into_iter().map(|(_, texts)| texts).collect();
    let without = found.iter().filter(|texts| texts.is_empty()).count();
    match without {
        0 => {}
        all if all == found.len() => bail!("--references {source}: it answers none of the {all} prompts"),
        some => tracing::warn!("{some} of {} prompts have no reference in {source}", found.len()),
    }
    Ok(found)
}

fn is_rated(source: &Source) -> bool {
    read_rows(source, &ReadOptions::default()).is_ok_and(|mut rows| matches!(rows.next(), Some(Ok(_))))
}

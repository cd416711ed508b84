//! A model's own decoding settings, `generation_config.json`, as transformers reads them.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Decoding, EarlyStopping};
use crate::error::{Error, Result};
use crate::store::within;

/// What a `generation_config.json` asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDecoding {
    /// Its settings in the places of the given ones.
    pub decoding: Decoding,
    /// What was taken from it that differs, as `name value`.
    pub taken: Vec<String>,
    /// Texts before which an answer ends.
    pub stop: Vec<String>,
    /// The token that stands before an answer, where the file names one.
    pub decoder_start: Option<u32>,
    /// What it asks for that is not supported, as `name value`.
    pub unsupported: Vec<String>,
}

/// Fields that change answers and are not supported, with the value that asks for nothing.
const UNSUPPORTED: [(&str, f64); 13] = [
    ("diversity_penalty", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("num_beam_groups", 1.0),
    ("num_return_sequences", 1.0),
    ("force_words_ids", NOTHING),
    ("constraints", NOTHING),
    ("exponential_decay_length_penalty", NOTHING),
    ("guidance_scale", 1.0),
    ("penalty_alpha", 0.0),
    ("max_time", NOTHING),
    ("renormalize_logits", NOTHING),
    ("watermarking_config", NOTHING),
];
/// No number asks for nothing; `false` always does.
const NOTHING: f64 = f64::NAN;

impl StoredDecoding {
    /// Reads the file of the model in `dir`, if there is one; `base` is what holds where it says nothing.
    ///
    /// # Errors
    /// If it cannot be read, or a field has another type than it should; the message names it.
    pub fn read(dir: &Path, base: &Decoding) -> Result<Option<Self>> {
        let path = dir.join("generation_config.json");
        let Some(text) = within::read_if_there(&path, within::SETTINGS)? else { return Ok(None) };
        let fields: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|e| Error::File { path: path.clone(), problem: format!("not a JSON object: {e}") })?;
        Self::of(&fields, base).map(Some).map_err(|problem| Error::File { path, problem })
    }

    fn of(fields: &Map<String, Value>, base: &Decoding) -> std::result::Result<Self, String> {
        let mut d = base.clone();
        let p = &mut d.processors;
        take(fields, "do_sample", &mut d.sample)?;
        take(fields, "temperature", &mut p.temperature)?;
        take(fields, "top_p", &mut p.top_p)?;
        take(fields, "repetition_penalty", &mut p.repetition_penalty)?;
        take(fields, "no_repeat_ngram_size", &mut p.no_repeat_ngram_size)?;
        take(fields, "min_p", &mut p.min_p)?;
        take(fields, "typical_p", &mut p.typical_p)?;
        take(fields, "epsilon_cutoff", &mut p.epsilon_cutoff)?;
        take(fields, "eta_cutoff", &mut p.eta_cutoff)?;
        take(fields, "sequence_bias", &mut p.sequence_bias)?;
        take(fields, "bad_words_ids", &mut p.bad_words_ids)?;
        take(fields, "suppress_tokens", &mut p.suppress_tokens)?;
        take(fields, "begin_suppress_tokens", &mut p.begin_suppress_tokens)?;
        p.forced_bos_token_id = field(fields, "forced_bos_token_id")?.or(p.forced_bos_token_id);
        p.forced_eos_token_id = ids(fields, "forced_eos_token_id")?.unwrap_or_else(|| p.forced_eos_token_id.clone());
        take(fields, "num_beams", &mut d.num_beams)?;
        take(fields, "length_penalty", &mut d.length_penalty)?;
        if d.sample {
            // What transformers draws from where a file does not say.
            p.top_k = 50;
        }
        take(fields, "top_k", &mut p.top_k)?;
        d.min_length = field(fields, "min_length")?.or(d.min_length);
        take(fields, "min_new_tokens", &mut d.min_new_tokens)?;
        d.max_length = field(fields, "max_length")?.or(d.max_length);
        if let Some(tokens) = field(fields, "max_new_tokens")? {
            (d.max_new_tokens, d.max_length) = (tokens, None);
        }
        d.early_stopping = match fields.get("early_stopping") {
            None | Some(Value::Null) => d.early_stopping,
            Some(Value::Bool(true)) => EarlyStopping::Once,
            Some(Value::Bool(false)) => EarlyStopping::Heuristic,
            Some(Value::String(never)) if never == "never" => EarlyStopping::Never,
            Some(other) => return Err(format!("early_stopping: {other} is none of true, false and \"never\"")),
        };
        d.end_ids = ids(fields, "eos_token_id")?.unwrap_or_default();
        let stop = match fields.get("stop_strings") {
            Some(Value::String(text)) => vec![text.clone()],
            _ => field(fields, "stop_strings")?.unwrap_or_default(),
        };
        let decoder_start = field(fields, "decoder_start_token_id")?;
        let unsupported = UNSUPPORTED.iter().filter_map(|&(name, neutral)| {
            let value = fields.get(name).filter(|value| {
                ![Value::Null, Value::Bool(false)].contains(value) && value.as_f64() != Some(neutral)
            })?;
            Some(format!("{name} {value}"))
        });
        let taken = differences(base, &d).into_iter().map(|(name, value)| format!("{name} {value}"));
        Ok(Self { taken: taken.collect(), stop, decoder_start, unsupported: unsupported.collect(), decoding: d })
    }
}

fn field<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str) -> std::result::Result<Option<T>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).map_err(|e| format!("{name}: {e}")),
    }
}

/// One id or several.
fn ids(fields: &Map<String, Value>, name: &str) -> std::result::Result<Option<Vec<u32>>, String> {
    match fields.get(name) {
        Some(Value::Array(_)) => field(fields, name),
        _ => Ok(field::<u32>(fields, name)?.map(|id| vec![id])),
    }
}

fn take<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    name: &str,
    place: &mut T,
) -> std::result::Result<(), String> {
    field(fields, name)?.into_iter().for_each(|value| *place = value);
    Ok(())
}

impl Decoding {
    /// Names and values of the settings that `base` has otherwise, the tokens that end an answer aside.
    pub fn differences(&self, base: &Self) -> Vec<(String, String)> {
        differences(base, self)
    }
}

fn differences(base: &Decoding, now: &Decoding) -> Vec<(String, String)> {
    let plain = |decoding: &Decoding| {
        let mut all = Map::new();
        if let Ok(Value::Object(mut fields)) = serde_json::to_value(decoding) {
            if let Some(Value::Object(processors)) = fields.remove("processors") {
                all.extend(processors);
            }
            fields.remove("end-ids");
            all.extend(fields);
        }
        all
    };
    let base = plain(base);
    let changed = plain(now).into_iter().filter(|(name, value)| base.get(name) != Some(value));
    changed.map(|(name, value)| (name, value.as_str().map_or_else(|| short(&value), str::to_string))).collect()
}

/// A number as it was written: an `f32` has more digits as JSON than it means.
fn short(value: &Value) -> String {
    match value {
        Value::Number(number) if value.is_f64() => number.as_f64().map_or_else(String::new, |n| (n as f32).to_string()),
        Value::Array(values) => format!("[{}]", values.iter().map(short).collect::<Vec<_>>().join(", ")),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<StoredDecoding, String> {
        let fields: Map<String, Value> = serde_json::from_str(text).expect("JSON");
        StoredDecoding::of(&fields, &Decoding::default())
    }

    #[test]
    fn what_the_file_says_holds_and_what_is_not_supported_is_told() {
        let stored = read(
            r#"{"num_beams":4,"length_penalty":1.2,"early_stopping":true,"max_length":256,"min_length":3,
                "no_repeat_ngram_size":3,"eos_token_id":[1,7],"top_k":50,"diversity_penalty":0.0,"typical_p":0.9,
                "suppress_tokens":[5],"forced_eos_token_id":1,"sequence_bias":[[[3,4],-0.3]],"bad_words_ids":[[2,3],[9]],
                "penalty_alpha":0.6,"renormalize_logits":true,"remove_invalid_values":true,"transformers_version":"4.57.0","use_cache":true}"#,
        )
        .expect("valid");
        let d = &stored.decoding;
        assert_eq!((d.num_beams, d.length_penalty, d.early_stopping), (4, 1.2, EarlyStopping::Once));
        assert_eq!((d.max_length, d.min_length, &d.end_ids[..]), (Some(256), Some(3), &[1, 7][..]));
        assert_eq!(stored.unsupported, ["penalty_alpha 0.6", "renormalize_logits true"]);
        let p = &d.processors;
        assert_eq!((&p.suppress_tokens[..], &p.forced_eos_token_id[..], p.typical_p), (&[5][..], &[1][..], 0.9));
        assert_eq!((&p.sequence_bias, &p.bad_words_ids), (&vec![(vec![3, 4], -0.3)], &vec![vec![2, 3], vec![9]]));
        for taken in ["length-penalty 1.2", "sequence-bias [[[3, 4], -0.3]]", "suppress-tokens [5]"] {
            assert!(stored.taken.contains(&taken.to_string()), "{taken}: {:?}", stored.taken);
        }
        assert!(!stored.taken.iter().any(|taken| taken.starts_with("repetition")), "{:?}", stored.taken);
        let drawn = read(r#"{"do_sample":true,"temperature":0.7,"eos_token_id":1}"#).expect("valid").decoding;
        assert_eq!((drawn.sample, drawn.processors.top_k, drawn.end_ids), (true, 50, vec![1]));
        let stops = |text: &str| read(text).expect("valid").stop;
        assert_eq!(stops(r#"{"stop_strings":"END"}"#), ["END"]);
        assert_eq!(stops(r#"{"stop_strings":["a","b"]}"#), ["a", "b"]);
        assert_eq!(read(r#"{"decoder_start_token_id":5}"#).expect("valid").decoder_start, Some(5));
        let nothing = read("{}").expect("valid");
        assert_eq!((nothing.taken, nothing.stop, nothing.decoder_start), (vec![], vec![], None));
        assert!(read(r#"{"num_beams":"four"}"#).expect_err("a text").contains("num_beams"));
        assert!(read(r#"{"bad_words_ids":[3]}"#).expect_err("no list of lists").contains("bad_words_ids"));
        assert!(read(r#"{"forced_bos_token_id":-1}"#).expect_err("no token").contains("forced_bos_token_id"));
    }
}

//! Lists of responses in whatever way they are written.

use serde_json::Value;

use super::path;
use crate::feedback::records::kind;

type Result<T> = std::result::Result<T, String>;

/// The responses of a list, or of an object of lists of equal length.
pub(super) fn elements(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => Ok(list.clone()),
        Value::Object(fields) => {
            let lists: Vec<(&String, &Vec<Value>)> =
                fields.iter().filter_map(|(name, list)| Some((name, list.as_array()?))).collect();
            let Some(n) = lists.first().map(|(_, list)| list.len()) else {
                return Err("an object without lists, not a list of responses".into());
            };
            if let Some((name, list)) = lists.iter().find(|(_, list)| list.len() != n) {
                return Err(format!(
                    "an object of lists of unequal length: {n} in `{}`, {} in `{name}`",
                    lists[0].0,
                    list.len()
                ));
            }
            let element = |i: usize| lists.iter().map(|(name, list)| ((*name).clone(), list[i].clone())).collect();
            Ok((0..n).map(|i| Value::Object(element(i))).collect())
        }
        Value::String(_) => match path::as_json(value) {
            Some(json @ (Value::Array(_) | Value::Object(_))) => elements(&json),
            _ => Err("a text, not a list".into()),
        },
        other => Err(format!("{}, not a list", kind(other))),
    }
}

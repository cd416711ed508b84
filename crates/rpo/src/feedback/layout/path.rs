//! Where a value stands inside a record: the name of a column, or a dotted path such as `choices.0.message.content`.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// What `path` leads to, or `None` if it leads nowhere; null where it leads through null.
///
/// A column whose own name contains dots wins over a path. A number counts the elements of a list from 0, or from its end if
/// negative. Any other name inside a list means, of elements with that `name`, their `value` or `score`, else that field of
/// each element, as a list; annotations that were discarded are left out. A text that is JSON, as exports to CSV hold, is looked into.
pub(in crate::feedback) fn find<'a>(record: &'a Map<String, Value>, path: &str) -> Option<Cow<'a, Value>> {
    if let Some(value) = record.get(path) {
        return Some(Cow::Borrowed(value));
    }
    path.rmatch_indices('.').find_map(|(at, _)| inside(record.get(&path[..at])?, &path[at + 1..]))
}

fn inside<'a>(value: &'a Value, path: &str) -> Option<Cow<'a, Value>> {
    match value {
        Value::Null => Some(Cow::Owned(Value::Null)),
        Value::Object(map) => find(map, path),
        Value::Array(list) => of_list(list, path),
        Value::String(_) => {
            let value = as_json(value)?;
            Some(Cow::Owned(inside(&value, path)?.into_owned()))
        }
        _ => None,
    }
}

fn of_list<'a>(list: &'a [Value], path: &str) -> Option<Cow<'a, Value>> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    if let Ok(index) = first.parse::<i64>() {
        let index = if index < 0 { index + list.len() as i64 } else { index };
        let element = list.get(usize::try_from(index).ok()?)?;
        return rest.map_or(Some(Cow::Borrowed(element)), |rest| inside(element, rest));
    }
    let list = || list.iter().filter(|element| element.get("status").is_none_or(|status| !discarded(status)));
    let is_named = |element: &&Value| element.get("name").and_then(Value::as_str) == Some(path);
    let value_of = |element: &Value| element.get("value").or_else(|| element.get("score")).cloned();
    let named: Vec<Value> = list().filter(is_named).filter_map(value_of).collect();
    if !named.is_empty() {
        return Some(Cow::Owned(Value::Array(named)));
    }
    let each: Vec<Value> = list().filter_map(|v| inside(v, path).map(Cow::into_owned)).collect();
    (list().next().is_none() || !each.is_empty()).then_some(Cow::Owned(Value::Array(each)))
}

/// Whether an annotation's status says that it does not count.
pub(super) fn discarded(status: &Value) -> bool {
    matches!(status.as_str(), Some("discarded" | "draft" | "pending"))
}

/// A text that holds a JSON object or list.
pub(super) fn as_json(value: &Value) -> Option<Value> {
    let text = value.as_str()?.trim();
    let json = text.starts_with(['{', '[']) && text.ends_with(['}', ']']);
    if json { serde_json::from_str(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_through_objects_lists_and_texts_and_a_columns_own_name_wins() {
        let record = json!({
            "a.b": 1, "a": {"b": 2, "c": {"d.e": 3}}, "none": null, "empty": [],
            "list": [{"x": {"y": 4}}, {"x": {"y": 5}}, {"z": 0}],
            "scores": [{"name": "helpful", "value": 6}, {"name": "other", "score": 7}],
            "text": "{\"user-feedback\": 8}", "broken": "{\"user"
        });
        let Value::Object(record) = record else { unreachable!("an object") };
        for (path, value) in [
            ("a.b", json!(1)),
            ("a.c.d.e", json!(3)),
            ("none.deep", json!(null)),
            ("empty.x", json!([])),
            ("list.0.x.y", json!(4)),
            ("list.-2.x.y", json!(5)),
            ("list.x.y", json!([4, 5])),
            ("scores.helpful", json!([6])),
            ("scores.other", json!([7])),
            ("scores.1.score", json!(7)),
            ("text.user-feedback", json!(8)),
        ] {
            assert_eq!(find(&record, path).as_deref(), Some(&value), "{path}");
        }
        for path in ["b", "a.x", "list.3", "list.3.x", "list.w", "broken.user", "a.b.c"] {
            assert_eq!(find(&record, path), None, "{path}");
        }
    }
}

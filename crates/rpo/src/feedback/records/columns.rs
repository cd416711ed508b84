//! Values of Arrow columns as JSON: texts, numbers, lists and objects as they are, dates and times as ISO 8601.

use arrow_array::cast::AsArray;
use arrow_array::temporal_conversions as temporal;
use arrow_array::types::{
    ArrowDictionaryKeyType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use serde_json::{Map, Number, Value};

/// Row `i` of a batch.
pub(super) fn row(batch: &RecordBatch, i: usize) -> Map<String, Value> {
    let schema = batch.schema_ref();
    schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| (field.name().clone(), value(column, i)))
        .collect()
}

/// Element `i` of `column`.
///
/// A number that is none (NaN) is null, infinities are texts, and what has no counterpart in JSON is an object that says so:
/// no text and no number, so that it is never taken for one, while other columns of the row can be used.
fn value(column: &ArrayRef, i: usize) -> Value {
    if column.is_null(i) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => column.as_boolean().value(i).into(),
        DataType::Int8 => plain::<Int8Type>(column, i).into(),
        DataType::Int16 => plain::<Int16Type>(column, i).into(),
        DataType::Int32 => plain::<Int32Type>(column, i).into(),
        DataType::Int64 => plain::<Int64Type>(column, i).into(),
        DataType::UInt8 => plain::<UInt8Type>(column, i).into(),
        DataType::UInt16 => plain::<UInt16Type>(column, i).into(),
        DataType::UInt32 => plain::<UInt32Type>(column, i).into(),
        DataType::UInt64 => plain::<UInt64Type>(column, i).into(),
        DataType::Float16 => shortest(&plain::<Float16Type>(column, i)),
        DataType::Float32 => shortest(&plain::<Float32Type>(column, i)),
        DataType::Float64 => float(plain::<Float64Type>(column, i)),
        DataType::Decimal32(_, scale) => decimal::<Decimal32Type>(column, i, *scale),
        DataType::Decimal64(_, scale) => decimal::<Decimal64Type>(column, i, *scale),
        DataType::Decimal128(_, scale) => decimal::<Decimal128Type>(column, i, *scale),
        DataType::Decimal256(_, scale) => decimal::<Decimal256Type>(column, i, *scale),
        DataType::Utf8 => column.as_string::<i32>().value(i).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(i).into(),
        DataType::Utf8View => column.as_string_view().value(i).into(),
        DataType::Binary => text(column.as_binary::<i32>().value(i)),
        DataType::LargeBinary => text(column.as_binary::<i64>().value(i)),
        DataType::BinaryView => text(column.as_binary_view().value(i)),
        DataType::FixedSizeBinary(_) => text(column.as_fixed_size_binary().value(i)),
        DataType::List(_) => list(&column.as_list::<i32>().value(i)),
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(i)),
        DataType::ListView(_) => list(&column.as_list_view::<i32>().value(i)),
        DataType::LargeListView(_) => list(&column.as_list_view::<i64>().value(i)),
        DataType::FixedSizeList(..) => list(&column.as_fixed_size_list().value(i)),
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), value(column, i))).collect()
        }
        DataType::Map(..) => {
            let entries: ArrayRef = std::sync::Arc::new(column.as_map().value(i));
            let key = |j| match value(entries.as_struct().column(0), j) {
                Value::String(key) => key,
                other => other.to_string(),
            };
            (0..entries.len()).map(|j| (key(j), value(entries.as_struct().column(1), j))).collect()
        }
        DataType::Dictionary(keys, _) => match keys.as_ref() {
            DataType::Int8 => looked_up::<Int8Type>(column, i),
            DataType::Int16 => looked_up::<Int16Type>(column, i),
            DataType::Int32 => looked_up::<Int32Type>(column, i),
            DataType::Int64 => looked_up::<Int64Type>(column, i),
            DataType::UInt8 => looked_up::<UInt8Type>(column, i),
            DataType::UInt16 => looked_up::<UInt16Type>(column, i),
            DataType::UInt32 => looked_up::<UInt32Type>(column, i),
            _ => looked_up::<UInt64Type>(column, i),
        },
        other => time(column, i).map_or_else(|| unreadable(other.to_string()), Value::String),
    }
}

fn plain<T: ArrowPrimitiveType>(column: &ArrayRef, i: usize) -> T::Native {
    column.as_primitive::<T>().value(i)
}

fn looked_up<K: ArrowDictionaryKeyType>(column: &ArrayRef, i: usize) -> Value {
    let dictionary = column.as_dictionary::<K>();
    dictionary.key(i).map_or(Value::Null, |key| value(dictionary.values(), key))
}

fn list(elements: &ArrayRef) -> Value {
    (0..elements.len()).map(|i| value(elements, i)).collect()
}

/// Bytes that are not said to be text mostly are, in files of older writers.
fn text(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes)
        .map_or_else(|_| unreadable(format!("{} bytes that are not UTF-8", bytes.len())), Into::into)
}

fn unreadable(what: String) -> Value {
    Value::Object(Map::from_iter([("unreadable".to_string(), Value::String(what))]))
}

fn float(x: f64) -> Value {
    match x.is_infinite() {
        true => Value::String(if x > 0.0 { "Infinity" } else { "-Infinity" }.into()),
        false => Number::from_f64(x).map_or(Value::Null, Value::Number),
    }
}

/// The number that a narrow float is written as: 4.1 and not 4.099999904632568.
fn shortest(x: &impl ToString) -> Value {
    x.to_string().parse().map_or(Value::Null, float)
}

fn decimal<T: DecimalType>(column: &ArrayRef, i: usize, scale: i8) -> Value {
    let digits = T::format_decimal(plain::<T>(column, i), T::MAX_PRECISION, scale);
    match digits.parse::<i64>() {
        Ok(whole) => whole.into(),
        Err(_) => digits.parse().map_or(Value::Null, float),
    }
}

fn time(column: &ArrayRef, i: usize) -> Option<String> {
    use DataType::{Date32, Date64, Time32, Time64, Timestamp};
    let moment = match column.data_type() {
        Date32 => return Some(temporal::as_date::<Date32Type>(plain::<Date32Type>(column, i).into())?.to_string()),
        Date64 => return Some(temporal::as_date::<Date64Type>(plain::<Date64Type>(column, i))?.to_string()),
        Time32(TimeUnit::Second) => {
            return Some(temporal::time32s_to_time(plain::<Time32SecondType>(column, i))?.to_string());
        }
        Time32(_) => return Some(temporal::time32ms_to_time(plain::<Time32MillisecondType>(column, i))?.to_string()),
        Time64(TimeUnit::Microsecond) => {
            return Some(temporal::time64us_to_time(plain::<Time64MicrosecondType>(column, i))?.to_string());
        }
        Time64(_) => return Some(temporal::time64ns_to_time(plain::<Time64NanosecondType>(column, i))?.to_string()),
        Timestamp(TimeUnit::Second, _) => temporal::timestamp_s_to_datetime(plain::<TimestampSecondType>(column, i)),
        Timestamp(TimeUnit::Millisecond, _) => {
            temporal::timestamp_ms_to_datetime(plain::<TimestampMillisecondType>(column, i))
        }
        Timestamp(TimeUnit::Microsecond, _) => {
            temporal::timestamp_us_to_datetime(plain::<TimestampMicrosecondType>(column, i))
        }
        Timestamp(TimeUnit::Nanosecond, _) => {
            temporal::timestamp_ns_to_datetime(plain::<TimestampNanosecondType>(column, i))
        }
        _ => return None,
    };
    // A time zone of the column only says how to show the moment, which is stored in UTC.
    let zone = if matches!(column.data_type(), Timestamp(_, Some(_))) { "Z" } else { "" };
    Some(format!("{}{zone}", moment?.format("%Y-%m-%dT%H:%M:%S%.f")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{Float64Builder, ListBuilder, MapBuilder, StringBuilder};
    use arrow_array::{
        Date32Array, Decimal128Array, DurationSecondArray, FixedSizeBinaryArray, Float32Array, Float64Array,
        StringViewArray, StructArray, TimestampMicrosecondArray, UInt64Array,
    };
    use arrow_schema::Field;
    use serde_json::json;

    use super::*;

    fn of(column: impl Array + 'static) -> Value {
        list(&(Arc::new(column) as ArrayRef))
    }

    #[test]
    fn numbers_are_those_that_were_written() {
        assert_eq!(of(UInt64Array::from(vec![Some(u64::MAX), None])), json!([u64::MAX, null]));
        assert_eq!(of(Float32Array::from(vec![4.1, f32::NAN, f32::INFINITY])), json!([4.1, null, "Infinity"]));
        assert_eq!(of(Float64Array::from(vec![1e300, f64::NEG_INFINITY])), json!([1e300, "-Infinity"]));
        let decimals = |scale| Decimal128Array::from(vec![-450, 7]).with_precision_and_scale(9, scale).expect("scale");
        assert_eq!(of(decimals(2)), json!([-4.5, 0.07]));
        assert_eq!(of(decimals(0)), json!([-450, 7]));
    }

    #[test]
    fn times_are_iso_texts() {
        let moments = TimestampMicrosecondArray::from(vec![1_700_000_000_500_000]);
        assert_eq!(of(moments.clone()), json!(["2023-11-14T22:13:20.500"]));
        assert_eq!(of(moments.with_timezone("Europe/Berlin")), json!(["2023-11-14T22:13:20.500Z"]));
        assert_eq!(of(Date32Array::from(vec![19_675])), json!(["2023-11-14"]));
    }

    #[test]
    fn lists_structs_and_maps_are_kept() {
        let mut scores = ListBuilder::new(Float64Builder::new());
        scores.append_value([Some(1.0), None]);
        scores.append_null();
        scores.append_value([]);
        let texts = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("c")])) as ArrayRef;
        let scores = Arc::new(scores.finish()) as ArrayRef;
        let field = |name: &str, column: &ArrayRef| Arc::new(Field::new(name, column.data_type().clone(), true));
        let both = StructArray::from(vec![(field("text", &texts), texts), (field("scores", &scores), scores)]);
        let expected = json!([
            {"text": "a", "scores": [1.0, null]}, {"text": null, "scores": null}, {"text": "c", "scores": []}
        ]);
        assert_eq!(of(both), expected);
        let mut map = MapBuilder::new(None, StringBuilder::new(), Float64Builder::new());
        map.keys().append_value("help");
        map.values().append_value(3.0);
        map.append(true).expect("one entry");
        assert_eq!(of(map.finish()), json!([{"help": 3.0}]));
    }

    #[test]
    fn what_json_has_no_word_for_is_neither_text_nor_number() {
        let bytes =
            FixedSizeBinaryArray::try_from_iter([b"text", &b"\xff\xfe\0\0"[..]].into_iter()).expect("four bytes each");
        assert_eq!(of(bytes), json!(["text", {"unreadable": "4 bytes that are not UTF-8"}]));
        assert!(of(DurationSecondArray::from(vec![5]))[0]["unreadable"].is_string());
    }
}

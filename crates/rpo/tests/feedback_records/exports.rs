//! Rows as products and trainers export them: which text is the prompt, which the response, and what it is worth; rows that
//! lack something are left out and counted, and do not end the run.

use rpo::feedback::{ReadOptions, Source, read_rows};
use serde_json::{Value, json};

use super::Place;

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

/// Rows as `(prompt, response, reward)`, and what was noticed.
type Found = (Vec<(String, String, f64)>, String);

/// What is found, or what is wrong.
fn read_source(source: &Source, options: &ReadOptions) -> Result<Found, String> {
    let mut rows = read_rows(source, options).map_err(|e| e.to_string())?;
    let all: Result<Vec<_>, _> =
        rows.by_ref().map(|row| row.map(|f| (f.prompt.text().into_owned(), f.response, f.reward))).collect();
    Ok((all.map_err(|e| e.to_string())?, rows.notes().lines().join("\n")))
}

/// The same of a file of these rows, and of a list of them in one file.
fn read(rows: &[Value], options: &ReadOptions) -> Result<Found, String> {
    let place = Place::new();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let source = |path: String| Source::from(vec![path]);
    let as_lines = read_source(&source(place.write("d.jsonl", lines)), options);
    if let Ok(found) = &as_lines {
        let list = read_source(&source(place.write("l.json", json!(rows).to_string())), options);
        assert_eq!(list.as_ref(), Ok(found), "as a list");
    }
    as_lines
}

fn reward(columns: &str) -> ReadOptions {
    ReadOptions { reward: Some(columns.into()), ..ReadOptions::default() }
}

#[test]
fn an_empty_answer_is_never_what_was_asked() {
    let plain = ReadOptions::default();
    for row in [
        json!({"prompt": "Hi", "chosen": [user("Hi"), assistant("")], "rejected": [user("Hi"), assistant("Hello")], "score_chosen": 5, "score_rejected": 1}),
        json!({"prompt": "Hi", "chosen": null, "rejected": [user("Hi"), assistant("Hello")], "score_chosen": 5, "score_rejected": 1}),
        json!({"chosen": null, "rejected": [user("Hi"), assistant("Hello")], "score_chosen": 5, "score_rejected": 1}),
    ] {
        let (rows, notes) = read(std::slice::from_ref(&row), &plain).expect("readable");
        assert_eq!(rows, [("Hi".into(), "Hello".into(), 1.0)], "{row}");
        assert!(notes.contains("1 response is empty"), "{notes}");
    }
    let good = json!({"prompt": "p", "response": "x", "reward": 1});
    let turns = json!({"prompt": "Hi", "response": [user("Hi"), assistant("")], "reward": 1});
    let (rows, notes) = read(&[good.clone(), turns], &plain).expect("readable");
    assert_eq!((rows.len(), notes.contains("1 row has an empty response")), (1, true), "{notes}");
    let dialogues = [
        json!({"messages": [user("Hi"), assistant("Hello")], "label": true}),
        json!({"messages": [user("Hi"), assistant("Hello"), assistant("")], "label": false}),
        json!({"messages": [user("Hi"), assistant("Hello"), user("And?")], "label": false}),
        json!({"messages": [user("Hi"), {"role": "assistant", "content": null}], "label": false}),
    ];
    let (rows, notes) = read(&dialogues, &plain).expect("readable");
    assert_eq!(rows, [("Hi".into(), "Hello".into(), 1.0)]);
    assert!(notes.contains("3 rows have an empty response"), "{notes}");
}

#[test]
fn pairs_keep_what_was_asked() {
    let plain = ReadOptions::default();
    let asked = [
        json!({"conversations": [{"from": "human", "value": "2+2?"}], "chosen": {"from": "gpt", "value": "The answer is 4."}, "rejected": {"from": "gpt", "value": "The answer is 5."}}),
        json!({"messages": [user("2+2?")], "chosen": "The answer is 4.", "rejected": "The answer is 5."}),
        json!({"question": {"id": "a", "full_text": "2+2?"}, "answer_0": "The answer is 4.", "answer_1": "The answer is 5.", "score_0": 1, "score_1": 0}),
        json!({"prompt": [user("2+2?")], "chosen": [assistant("The answer is 4.")], "rejected": [assistant("The answer is 5.")]}),
    ];
    for row in asked {
        let (rows, _) = read(std::slice::from_ref(&row), &plain).expect("readable");
        let expected = [("2+2?", "The answer is 4.", 1.0), ("2+2?", "The answer is 5.", 0.0)];
        assert_eq!(rows, expected.map(|(p, r, n)| (p.into(), r.into(), n)), "{row}");
    }
    let tool = json!({"role": "tool", "content": "20"});
    let turns = |answer: &str| json!([assistant("check"), tool, assistant(answer)]);
    let row = json!({"prompt": [user("weather?")], "chosen": turns("It is 20"), "rejected": turns("Dunno")});
    let (rows, _) = read(&[row], &plain).expect("readable");
    assert_eq!(rows[0], ("weather?".into(), "Assistant: check\nTool: 20\nAssistant: It is 20".into(), 1.0));
    // Texts that begin alike hold their prompt, unless it may stand elsewhere.
    let row = json!({"chosen": "The sky is blue", "rejected": "The sky is green", "source": "x"});
    assert_eq!(read(&[row], &plain).expect("readable").0[0].0, "The sky is");
    let row = json!({"ask": "What is 2+2?", "chosen": "It is 4", "rejected": "It is 5", "meta": {"input": "zzz"}});
    let said = read(&[row], &plain).expect_err("no prompt");
    assert!(said.contains("--prompt-column ask"), "{said}");
    let row = json!({"question": "q", "system": "Be brief.", "chosen": "a b", "rejected": "c d"});
    assert!(read(&[row], &plain).expect("readable").1.contains("column `system` is not read"));
    let row = json!({"prompt": "q", "chosen": "a", "rejected": "b", "margin": 2});
    assert!(read(&[row], &reward("margin")).expect_err("one rating for two").contains("leave --reward-column out"));
}

#[test]
fn answers_that_are_json_stay_what_they_are() {
    for answer in [
        r#"{"from": "Berlin", "value": "12"}"#,
        r#"{"role": "user", "content": "Hi"}"#,
        r#"{"from": "x", "value": 12}"#,
    ] {
        let row = json!({"prompt": "Extract", "response": answer, "reward": 1});
        assert_eq!(read(&[row], &ReadOptions::default()).expect("readable").0[0].1, answer);
    }
}

#[test]
fn lists_of_responses_are_rated_by_their_own_fields_or_by_lists_beside_them() {
    let rewards = |row: Value, options: &ReadOptions| {
        let (rows, notes) = read(&[row], options).expect("readable");
        (rows.iter().map(|row| row.2).collect::<Vec<_>>(), notes)
    };
    let texts = json!({"prompt": "a", "responses": ["b", "c"], "s": [1, 2], "t": [3, 5]});
    assert_eq!(rewards(texts.clone(), &reward("s*-1")).0, [-1.0, -2.0]);
    assert_eq!(rewards(texts, &reward("s,t")).0, [2.0, 3.5]);
    let objects = json!({"prompt": "a", "responses": [{"text": "b"}, {"text": "c"}], "reward": [1, 2]});
    assert_eq!(rewards(objects, &ReadOptions::default()).0, [1.0, 2.0]);
    let turns = json!({"prompt": "a", "responses": [[assistant("b")], [assistant("c")]], "reward": [1, 2]});
    assert_eq!(rewards(turns, &ReadOptions::default()).0, [1.0, 2.0]);
    let (found, notes) =
        rewards(json!({"prompt": "a", "responses": [{"text": "b", "reward": 1}, null]}), &ReadOptions::default());
    assert!(found == [1.0] && notes.contains("1 response is empty"), "{notes}");
    let rows = [
        json!({"prompt": "a", "responses": ["b"], "reward": [1]}),
        json!({"prompt": "a", "responses": ["b", "c"], "reward": null}),
        json!({"prompt": "a", "response": "d", "reward": 2, "responses": null}),
    ];
    let (found, notes) = read(&rows, &ReadOptions::default()).expect("readable");
    assert_eq!(found.iter().map(|row| row.2).collect::<Vec<_>>(), [1.0, 2.0]);
    assert!(notes.contains("2 responses have no rating"), "{notes}");
    let wrong = json!({"prompt": "a", "responses": ["b", "c"], "reward": [1]});
    assert!(read(&[wrong], &ReadOptions::default()).expect_err("one rating").contains("no list of so many"));
}

#[test]
fn ratings_that_were_discarded_do_not_count() {
    let columns = json!({"user_id": ["x", "y"], "value": [5, 1], "status": ["submitted", "discarded"]});
    let list =
        json!([{"user_id": "x", "value": 5, "status": "submitted"}, {"user_id": "y", "value": 1, "status": "draft"}]);
    let native = json!([{"status": "submitted", "values": {"q": {"value": 5}}}, {"status": "discarded", "values": {"q": {"value": 1}}}]);
    for (rating, path) in [
        (columns.clone(), "rating"),
        (list.clone(), "rating"),
        (list.clone(), "rating.value"),
        (json!({"q": columns}), "rating.q"),
        (native, "rating.values.q.value"),
        (json!(list.to_string()), "rating"),
        (json!("[5, 5]"), "rating"),
    ] {
        let row = json!({"prompt": "a", "response": "b", "rating": rating});
        assert_eq!(read(&[row], &reward(path)).expect("readable").0[0].2, 5.0, "{rating} {path}");
    }
}

#[test]
fn questions_of_annotators_are_chosen_by_name() {
    let by = |value: Value| json!([{"user_id": "x", "value": value, "status": "submitted"}]);
    let row = json!({"prompt": "a", "response": "b", "accuracy": by(json!(1)), "comment": by(json!("great stuff")), "rating": by(json!(5))});
    let (rows, notes) = read(std::slice::from_ref(&row), &ReadOptions::default()).expect("readable");
    assert!(rows[0].2 == 5.0 && notes.contains("the mean of rating"), "{notes}");
    let (rows, notes) = read(&[row], &reward("accuracy")).expect("readable");
    assert!(rows[0].2 == 1.0 && notes.contains("the mean of accuracy"), "{notes}");
    let row = json!({"prompt": "a", "response": "b", "x": by(json!(1)), "y": by(json!(5))});
    assert!(read(&[row], &ReadOptions::default()).expect_err("two").contains("several rated questions: x, y"));
}

#[test]
fn the_first_row_need_not_have_what_others_have() {
    let rated = |n: i64| json!({"data": {"prompt": "a", "response": "b"}, "annotations": [{"result": [{"from_name": "r", "value": {"rating": n}}]}]});
    let rows = [json!({"data": {"prompt": "a", "response": "b"}, "annotations": []}), rated(4)];
    let (found, notes) = read(&rows, &ReadOptions::default()).expect("readable");
    assert!(found.len() == 1 && notes.contains("1 row has no rating"), "{notes}");
    for path in ["r", "annotations.result.value.rating", "annotations.0.result.0.value.rating"] {
        assert_eq!(read(&[rated(4)], &reward(path)).expect(path).0[0].2, 4.0, "{path}");
    }
    assert!(read(&[rated(4)], &reward("rr")).expect_err("no control").contains("there are: r"));
    let trace = |scores: Value| json!({"input": "a", "output": "b", "scores": scores});
    let rows = [trace(json!([])), trace(json!([{"name": "uf", "value": 1}, {"name": "uf", "value": 0}]))];
    let (found, notes) = read(&rows, &ReadOptions::default()).expect("readable");
    assert_eq!(found, [("a".into(), "b".into(), 0.5)], "{notes}");
    let rows = [
        json!({"instruction": "a", "completions": []}),
        json!({"instruction": "a", "completions": [{"response": "b", "overall_score": 7, "annotations": {"h": {"Rating": "4"}}}]}),
    ];
    assert_eq!(read(&rows, &ReadOptions::default()).expect("readable").0, [("a".into(), "b".into(), 7.0)]);
    assert_eq!(read(&rows, &reward("annotations.h.Rating")).expect("readable").0[0].2, 4.0);
}

#[test]
fn a_file_of_one_row_is_no_list_of_what_stands_in_it() {
    let place = Place::new();
    let alone = |row: Value, options: &ReadOptions| {
        ["d.jsonl", "d.json"].map(|name| {
            let path = place.write(name, format!("{row}\n"));
            read_source(&Source::from(vec![path]), options).map(|(rows, _)| rows)
        })
    };
    let row = json!({"prompt": "a", "response": "b", "reward": 1, "examples": [{"prompt": "x", "response": "y", "reward": 0}]});
    for found in alone(row, &ReadOptions::default()) {
        assert_eq!(found, Ok(vec![("a".into(), "b".into(), 1.0)]));
    }
    let named = ReadOptions {
        prompt: Some("q".into()),
        responses: Some("cands".into()),
        text: Some("content".into()),
        ..reward("rating")
    };
    for found in alone(json!({"q": "a", "cands": [{"content": "b", "rating": 1}]}), &named) {
        assert_eq!(found, Ok(vec![("a".into(), "b".into(), 1.0)]));
    }
    for found in alone(json!({"prompt": [user("a")], "responses": ["b"], "reward": [1]}), &ReadOptions::default()) {
        assert_eq!(found, Ok(vec![("a".into(), "b".into(), 1.0)]));
    }
    // Rows under whatever key is the only list.
    for found in alone(json!({"feedback": [{"prompt": "a", "response": "b", "reward": 1}]}), &ReadOptions::default()) {
        assert_eq!(found, Ok(vec![("a".into(), "b".into(), 1.0)]));
    }
}

#[test]
fn one_of_several_files_may_have_no_rating_or_no_byte() {
    let place = Place::new();
    place.write("d/a.jsonl", "{\"prompt\":\"a\",\"response\":\"b\",\"reward\":1}\n");
    place.write("d/b.jsonl", "{\"prompt\":\"a\",\"response\":\"c\"}\n");
    place.write("d/c.jsonl", "");
    let (rows, notes) = read_source(&Source::from(vec![place.path("d")]), &ReadOptions::default()).expect("readable");
    assert_eq!(rows, [("a".into(), "b".into(), 1.0)]);
    assert!(notes.contains("1 row has no rating") && notes.contains("1 file is empty"), "{notes}");
    // One whose ratings have another name is no such file.
    place.write("d/b.jsonl", "{\"prompt\":\"a\",\"response\":\"c\",\"score\":1}\n");
    let said = read_source(&Source::from(vec![place.path("d")]), &ReadOptions::default()).expect_err("another name");
    assert!(said.contains("b.jsonl: no `reward`") && said.contains("score"), "{said}");
}

#[test]
fn decimal_commas_do_not_depend_on_the_order_and_points_beside_them_are_refused() {
    let place = Place::new();
    let table = |name: &str, rewards: &[&str]| {
        let rows: String = rewards.iter().map(|reward| format!("a;b{reward};{reward}\n")).collect();
        let path = place.write(name, format!("prompt;response;reward\n{rows}\n\u{1a}"));
        read_source(&Source::from(vec![path]), &ReadOptions::default())
    };
    let rewards = table("a.csv", &["3,667", "4,5"]).expect("decimal commas").0;
    assert_eq!(rewards.iter().map(|row| row.2).collect::<Vec<_>>(), [3.667, 4.5]);
    for mixed in [&["3,5", "1.000"], &["1.000", "3,5"]] {
        assert!(table("b.csv", mixed).expect_err("ambiguous").contains("write all ratings alike"));
    }
    let map =
        ReadOptions { reward_map: [("1".to_string(), -1.0), ("5".to_string(), 1.0)].into(), ..ReadOptions::default() };
    let row = json!({"prompt": "a", "response": "b", "reward": 5.0});
    assert_eq!(read(&[row], &map).expect("readable").0[0].2, 1.0);
}

#[test]
fn many_columns_and_many_ratings_take_no_longer_than_there_are() {
    let place = Place::new();
    let names: Vec<String> = (0..20_000).map(|i| format!("c{i}")).collect();
    let header = format!("prompt,response,reward,{}\n", names.join(","));
    let row = format!("a,b,1{}\n", ",x".repeat(names.len()));
    let path = place.write("wide.csv", header + &row.repeat(50));
    assert_eq!(read_source(&Source::from(vec![path]), &ReadOptions::default()).expect("readable").0.len(), 50);
    let texts: Vec<String> = (0..30_000).map(|i| format!("t{i}")).collect();
    let ratings: Vec<Value> = (0..30_000).map(|i| json!({"s": i})).collect();
    let row = json!({"prompt": "a", "responses": texts, "m": ratings});
    assert_eq!(read(&[row], &reward("m.s")).expect("readable").0.len(), 30_000);
}

//! Runs that are begun, stopped, gone on with and refused: what is said, what is left on disk, and with which status the
//! program ends.

mod common;

use common::{Place, TRAIN, names};

#[test]
fn a_run_goes_on_by_its_directory_alone_and_tells_its_true_last_validation() {
    let place = Place::with_model();
    let last_lines = |said: &str| said.lines().rev().take(4).map(str::to_string).collect::<Vec<_>>();
    let begun = place.ok(&format!("{TRAIN} --max-steps 3 --batch-size 8 --learning-rate 0.01 --validate-every 1"));
    let nothing_left = place.ok("train --resume run");
    assert_eq!(last_lines(&begun), last_lines(&nothing_left), "nothing was left to do");
    let longer = place.ok("train --resume run --max-steps 4");
    assert!(longer.contains("max-steps: 3 then, 4 now") && longer.contains("going on after step 3"), "{longer}");
    let record = std::fs::read_to_string(place.path("run/metrics.jsonl")).expect("record");
    let validations = record.lines().filter(|line| line.contains("\"split\":\"validation\"")).count();
    assert_eq!(validations, 5, "the start and four steps, each once: {record}");
}

#[test]
fn what_differs_from_the_run_that_was_begun_is_named_and_refused() {
    let place = Place::with_model();
    place.ok(&format!("{TRAIN} --max-steps 2 --batch-size 8"));
    let data = std::fs::read_to_string(place.path("data.jsonl")).expect("data");
    place.write("other.jsonl", &data.replace("\"reward\":1", "\"reward\":-1"));
    place.write("fewer.jsonl", &data.lines().take(12).map(|line| format!("{line}\n")).collect::<String>());
    place.ok("init --config config.json --tokenizer tokenizer.json --seed 7 --out other");
    for (change, named) in [
        ("--learning-rate 0.5", "train.optimizer.learning-rate: 0.0001 then, 0.5 now"),
        ("--batch-size 4", "train.batch-size: 8 then, 4 now"),
        ("--seed 1", "train.seed"),
        ("--tau 3", "objective.tau"),
        ("--split-seed 3", "split-seed"),
        ("--data other.jsonl", "the data (other.jsonl)"),
        ("--data fewer.jsonl", "the data (fewer.jsonl)"),
        ("--model other", "model"),
        ("sft", "objective.name"),
    ] {
        let said = place.complaint(&format!("train --resume run --max-steps 4 {change}"));
        assert!(said.contains(named) && said.contains("new run with another --out"), "{change}: {said}");
    }
    // The same bytes elsewhere are the same data.
    place.write("moved.jsonl", &data);
    place.ok("train --resume run --max-steps 3 --data moved.jsonl");
}

#[test]
fn a_dry_run_tells_steps_time_and_memory_and_writes_nothing() {
    let place = Place::with_model();
    let said = place.ok(&format!("{TRAIN} --max-steps 7 --batch-size 8 --dry-run"));
    for expected in
        ["learning-rate = ", "objective: rpo", "steps: 7 of ", "estimated time: ", "estimated peak memory: "]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!place.path("run").exists());
}

#[test]
fn divergence_is_told_and_leaves_only_numbers() {
    let place = Place::with_model();
    let said = place.complaint(&format!(
        "{TRAIN} --max-steps 20 --batch-size 8 --validate-every 1 --warmup-steps 0 --learning-rate 1e30"
    ));
    assert!(said.contains("lower the learning rate") && said.contains("step "), "{said}");
    for dir in ["best", "last"].map(|name| place.path("run").join(name)).iter().filter(|dir| dir.exists()) {
        let bytes = std::fs::read(dir.join("model.safetensors")).expect("weights");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let weights = bytes[8 + header..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        assert!(weights.into_iter().all(f32::is_finite), "{}", dir.display());
    }
}

#[test]
fn what_is_in_the_way_is_told_before_data_are_read() {
    let place = Place::with_model();
    place.write("run/notes", "mine");
    let said = place.complaint("train rpo --model model --data nowhere.jsonl --out run");
    assert!(said.contains("already exists") && !said.contains("nowhere"), "{said}");
    for flag in ["--max-prompt-tokens", "--max-response-tokens"] {
        let said = place.complaint(&format!("train rpo --model model --data data.jsonl --out new {flag} 0"));
        assert!(said.contains(&flag[2..]) && said.contains("at least 1"), "{said}");
    }
    assert_eq!(names(&place.path("run")), ["notes"]);
}

#[cfg(unix)]
#[test]
fn a_termination_is_told_by_the_exit_status() {
    let place = Place::with_model();
    assert_eq!(place.ended_by("-TERM"), Some(143));
    let said = place.ok("train --resume run --max-steps 1");
    assert!(said.contains("going on after step"), "{said}");
}

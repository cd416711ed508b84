//! Settings as a file: the one that `rpo config` prints can be trained with, and what is wrong with one is told at once.

mod common;

use common::{Place, TRAIN};

#[test]
fn the_printed_file_trains_and_its_schema_is_json() {
    let place = Place::with_model();
    let text = place.ok("config --for rpo");
    let own = text
        .replace("\"google/flan-t5-small\"", "\"model\"")
        .replace("\"ratings.jsonl\"", "\"data.jsonl\"")
        .replace("\"runs/first\"", "\"run\"")
        .replace("#batch-size = 32", "batch-size = 5");
    place.write("run.toml", &own);
    let said = place.ok("train rpo --config run.toml --max-steps 2");
    assert!(said.contains("5 responses"), "{said}");
    let saved = std::fs::read_to_string(place.path("run/config.toml")).expect("saved");
    assert!(saved.contains("batch-size = 5"), "{saved}");
    let schema: serde_json::Value = serde_json::from_str(&place.ok("config --schema")).expect("JSON");
    assert_eq!(schema["properties"]["train"]["$ref"], "#/$defs/TrainConfig");
    assert_eq!(schema["$defs"]["TrainConfig"]["properties"]["batch-size"]["default"], 32);
    assert!(place.complaint("config --for ppo").contains("group-centred"));
}

#[test]
fn all_that_is_wrong_is_told_with_where_it_comes_from() {
    let place = Place::with_model();
    place.write("run.toml", "modle = \"m\"\n[train]\nepochs = \"3\"\nbatchsize = 3\n");
    let said = place.complaint(&format!("{TRAIN} --config run.toml --set objective.tua=1"));
    for expected in [
        "run.toml, line 1: modle: there is no such setting. Did you mean `model`?",
        "run.toml, line 3: train.epochs: \"3\" is not a whole number of at least 0",
        "run.toml, line 4: train.batchsize: there is no such setting. Did you mean `batch-size`?",
        "--set objective.tua: objective.tua: there is no such setting of rpo. Did you mean `tau`?",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    place.write("run.toml", "[train]\nepochs = 0\n");
    let said = place.complaint(&format!("{TRAIN} --config run.toml"));
    assert!(said.contains("run.toml, line 2: epochs: 0 is not a positive number"), "{said}");
    let said = place.complaint(&TRAIN.replace("rpo", "sft --tau 3"));
    assert!(said.contains("--tau: objective.tau: there is no such setting of sft"), "{said}");
}

#[test]
fn colours_are_as_asked_for_in_help_too() {
    let place = Place::new();
    for (arguments, coloured) in [("--help", false), ("--color always --help", true), ("train --color=always -h", true)]
    {
        assert_eq!(place.ok(arguments).contains('\u{1b}'), coloured, "{arguments}");
    }
    let said = |arguments: &str, variable: &str| {
        let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
        command.args(arguments.split(' ')).env(variable, "1");
        String::from_utf8_lossy(&command.output().expect("runs").stderr).into_owned()
    };
    assert!(said("trian", "CLICOLOR_FORCE").contains('\u{1b}'));
    assert!(!said("--color never trian", "CLICOLOR_FORCE").contains('\u{1b}'));
}

//! What the program says of itself and of mistakes in settings.

mod common;

use common::{Place, TRAIN};

#[test]
fn mistakes_in_settings_are_named_with_what_was_meant() {
    let place = Place::new();
    for (arguments, complaints) in [
        ("train rpo", &["missing: model (--model), data (--data), out (--out)"][..]),
        ("train rpo --model m --data d", &["missing: out (--out)"]),
        (
            "train rpo --model m --data d --out o --set train.batchsize=3",
            &["--set train.batchsize: train.batchsize: ", "Did you mean `batch-size`?"],
        ),
        ("train rpo --model m --data d --out o --set objective.partition=fited", &["Did you mean `fitted`?"]),
        ("train rpo --model m --data d --out o --partition fited", &["[possible values: fitted", "'fitted'"]),
        ("train rpo --model m --data d --out o --device cuda2", &["possible values: cpu, cuda"]),
        ("train rpo --model m --data d --out o --tau -1", &["tau: -1 is not a positive number"]),
        (
            "train kto --model m --data d --out o --set objective.threshold=median",
            &["one of `mean`, `prompt-mean`, a number or a table"],
        ),
        ("train rpo --modle m", &["--model"]),
    ] {
        let said = place.complaint(arguments);
        for complaint in complaints {
            assert!(said.contains(complaint), "{arguments}: {said}");
        }
        assert!(!said.contains("fill what is missing"), "{said}");
    }
}

#[test]
fn mistakes_in_a_file_are_told_with_their_line() {
    let place = Place::new();
    let head = "model = \"m\"\ndata = \"d\"\nout = \"o\"\n";
    for (rest, complaint) in [
        ("[train]\nbatchsize = 3\n", "run.toml, line 5: train.batchsize: there is no such setting"),
        ("[train]\nepochs = 1\nseed = \"x\"\n", "run.toml, line 6: train.seed: \"x\" is not a whole number"),
        ("[train\n", "line 4"),
    ] {
        place.write("run.toml", &format!("{head}{rest}"));
        let said = place.complaint("train rpo --config run.toml");
        assert!(said.contains("run.toml") && said.contains(complaint), "{rest}: {said}");
    }
}

#[test]
fn it_tells_which_program_it_is_and_helps_shells_and_readers() {
    let place = Place::new();
    let version = place.ok("--version");
    assert!(
        version.starts_with("rpo ") && version.contains("commit ") && version.contains("features: cpu"),
        "{version}"
    );
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(place.ok(&format!("completions {shell}")).contains("generate"), "{shell}");
    }
    place.ok("man pages");
    let page = std::fs::read_to_string(place.path("pages/rpo-train.1")).expect("page");
    assert!(page.contains("resume"), "{page}");
    let help = place.ok("train --help");
    for part in ["Method:", "Data, loop and output:", "Layout of the data:", "Examples:"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn messages_are_plain_where_there_is_no_terminal_and_can_be_left_out() {
    let place = Place::with_model();
    let said = |arguments: &str| {
        let output = place.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).expect("text")
    };
    let ask = "generate --model model --max-new-tokens 2 --max-prompt-tokens 2 say\u{a0}yes\u{a0}please";
    let plain = said(ask);
    assert!(plain.contains("warning: 1 of 1 prompts were cut at 2 tokens") && !plain.contains('\u{1b}'), "{plain}");
    assert!(said(&format!("{ask} --color always")).contains("\u{1b}["));
    assert!(!said(&format!("{ask} --quiet")).contains("warning"));
    assert!(!said(&format!("{TRAIN} --max-steps 1 -q")).contains("warning"));
}

#[cfg(unix)]
#[test]
fn output_that_nobody_reads_is_no_failure_of_the_program() {
    let place = Place::new();
    for arguments in ["completions bash", "convert data.jsonl --out -", "train --help"] {
        let line = format!("{} {arguments} | true", env!("CARGO_BIN_EXE_rpo"));
        let output = place.command("sh").args(["-c", &line]).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{arguments}: {said}");
    }
}

#[test]
fn several_processes_do_not_write_over_each_other() {
    let place = Place::with_model();
    let started = |variables: &[(&str, &str)], arguments: &str| {
        let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
        let output = command.envs(variables.iter().copied()).args(arguments.split(' ')).output().expect("runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let first_of_four = [("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "0")];
    let another = [("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "1")];
    // Without MPI they cannot be joined; what one process does is refused with it too.
    if cfg!(not(feature = "mpi")) {
        let (done, said) = started(&first_of_four, &format!("{TRAIN} --max-steps 1"));
        assert!(!done && said.contains("mpirun started 4 processes") && said.contains("--features mpi"), "{said}");
        assert!(!place.path("run").exists());
    }
    let score = "score --model model data.jsonl --output scores.jsonl";
    let (done, said) = started(&first_of_four, score);
    assert!(!done && said.contains("start it once") && !place.path("scores.jsonl").exists(), "{said}");
    let (done, said) = started(&another, score);
    assert!(!done && said.is_empty(), "the first says it: {said}");
    // Parts, and what writes nothing, are for any number.
    let part = "generate --model model --input data.jsonl --max-new-tokens 2 --shard 1/2 --output part.jsonl";
    assert!(started(&first_of_four, part).0);
    assert!(started(&[("OMPI_COMM_WORLD_SIZE", "1")], score).0);
}

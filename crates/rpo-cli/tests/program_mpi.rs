//! `mpirun -n N rpo train`: any number of processes comes to the same bytes, whatever happens to one of them, and what cannot work
//! together is refused by name. On two hosts as well: network namespaces that a shaped line joins, for which one must be root (it is
//! said if not). `RPO_KILLS=50` makes the test of killed processes last. Built with MPICH (`MPICC=mpicc.mpich`), they run under its launcher with
//! `RPO_MPIRUN=mpirun.mpich`, but for those on two hosts.

#![cfg(all(feature = "mpi", target_os = "linux"))]

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::Place;

const RUN: &str = "train kto --model model --data data.jsonl --max-steps 8 --batch-size 8 --validate-every 4 --save-every 1 \
                   --learning-rate 0.01 --shards 4";

/// So long the others may go on after one has failed.
const SOON: Duration = Duration::from_secs(20);

/// What starts processes.
static LAUNCHER: LazyLock<String> = LazyLock::new(|| std::env::var("RPO_MPIRUN").unwrap_or_else(|_| "mpirun".into()));

/// Whether it is OpenMPI's.
static IS_OPEN: LazyLock<bool> = LazyLock::new(|| {
    let version = Command::new(&*LAUNCHER).arg("--version").output().expect("a launcher");
    String::from_utf8_lossy(&version.stdout).contains("Open MPI")
});

/// The variable in which a process finds its rank.
fn rank_variable() -> &'static str {
    if *IS_OPEN { "OMPI_COMM_WORLD_RANK" } else { "PMI_RANK" }
}

/// The launcher for so many processes of what follows, on as few processors as there are.
fn mpirun(place: &Place, n: usize) -> Command {
    let mut command = place.command(&LAUNCHER);
    command.args(["-n", &n.to_string()]);
    if *IS_OPEN {
        command.args(["--oversubscribe", "--bind-to", "none"]);
    }
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

fn on(place: &Place, n: usize, arguments: &str) -> Output {
    let mut command = mpirun(place, n);
    command.arg(env!("CARGO_BIN_EXE_rpo")).args(arguments.split_whitespace()).output().expect("mpirun")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn well(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

fn json(place: &Place, name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(place.path(name)).expect(name)).expect("JSON")
}

/// The bytes that a run must come to, and its record without times.
fn result(run: &Path) -> (Vec<Vec<u8>>, Vec<serde_json::Value>) {
    let read =
        |name: &str| std::fs::read(run.join(name)).unwrap_or_else(|e| panic!("{}: {e}", run.join(name).display()));
    let files = ["last/model.safetensors", "last/resume/optimizer.safetensors", "best/model.safetensors"];
    let without_time = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line.as_object_mut().expect("object").remove("seconds");
        line
    };
    let record = String::from_utf8(read("metrics.jsonl")).expect("text");
    (files.map(read).into(), record.lines().map(without_time).collect())
}

/// The process that is this rank of a program that runs in `place`.
fn process_of(place: &Place, rank: usize) -> Option<u32> {
    let (rank, place) = (format!("{}={rank}", rank_variable()), place.path("cache").display().to_string());
    let is_it = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let has = |wanted: &str| environment.split(|b| *b == 0).any(|part| part.ends_with(wanted.as_bytes()));
        program == Path::new(env!("CARGO_BIN_EXE_rpo")) && has(&rank) && has(&format!("={place}"))
    };
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it)
}

fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill");
    assert!(sent.success() || signal == "-KILL");
}

/// Waits for the end, which must come soon.
fn end(mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().expect("child").is_none() {
        assert!(began.elapsed() < SOON, "it goes on after {SOON:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("ended")
}

fn start(place: &Place, n: usize, arguments: &str) -> Child {
    let mut command = mpirun(place, n);
    command.arg(env!("CARGO_BIN_EXE_rpo")).args(arguments.split_whitespace());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("mpirun")
}

/// Waits until the run has saved after a step.
fn until_saved(place: &Place, run: &str, step: u64) {
    let began = Instant::now();
    let saved = || -> Option<u64> {
        let text = std::fs::read_to_string(place.path(run).join("last/resume/progress.json")).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()?["step"].as_u64()
    };
    while saved().is_none_or(|saved| saved < step) {
        assert!(began.elapsed() < Duration::from_mins(1), "nothing is saved");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn any_number_of_processes_comes_to_the_same_bytes() {
    let place = Place::with_model();
    place.ok(&format!("{RUN} --out one"));
    let one = result(&place.path("one"));
    for n in [2, 4] {
        let output = on(&place, n, &format!("{RUN} --out {n} --cache cache-{n}"));
        well(&output);
        assert!(result(&place.path(&n.to_string())) == one, "{n} processes");
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(told.matches("objective: kto").count(), 1, "one speaks for all: {told}");
        assert!(told.contains(&format!("{n} processes")), "{told}");
    }
}

#[test]
fn a_request_to_end_that_one_process_hears_saves_and_another_number_goes_on() {
    let place = Place::with_model();
    let long = RUN.replace("--max-steps 8", "--max-steps 3000").replace("--save-every 1", "--save-every 1000");
    let child = start(&place, 4, &format!("{long} --out run"));
    until_saved(&place, "run", 4);
    signal(process_of(&place, 2).expect("rank 2"), "-TERM");
    end(child);
    let text = std::fs::read_to_string(place.path("run/last/resume/progress.json")).expect("saved");
    let step = serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["step"].as_u64().expect("a step");
    assert!(step >= 4);
    let more = step + 3;
    well(&on(&place, 2, &format!("train --resume run --max-steps {more}")));
    // A run alone that stops and goes on at the same steps.
    let refused = on(&place, 3, "train --resume run --max-steps 100000");
    assert!(!refused.status.success() && said(&refused).contains("shards"), "{}", said(&refused));
}

#[test]
fn a_process_that_is_killed_ends_all_and_the_run_goes_on_to_the_same_bytes() {
    let kills: u32 = std::env::var("RPO_KILLS").map_or(4, |n| n.parse().expect("a number"));
    let place = Place::with_model();
    let began = Instant::now();
    place.ok(&format!("{RUN} --out whole"));
    let (whole, took) = (result(&place.path("whole")), began.elapsed());
    for n in 0..kills {
        let run = format!("killed-{n}");
        let child = start(&place, 4, &format!("{RUN} --out {run}"));
        // From the beginning to the end of a run, evenly.
        std::thread::sleep(took * (n + 1) * 3 / (kills + 1));
        if let Some(pid) = process_of(&place, n as usize % 4) {
            signal(pid, "-KILL");
        }
        end(child);
        let go_on = match place.path(&run).join("config.toml").is_file() {
            true => format!("train --resume {run}"),
            false => format!("{RUN} --out {run}"),
        };
        well(&on(&place, 2, &go_on));
        assert!(result(&place.path(&run)) == whole, "killed for the {n}th time");
    }
}

#[test]
fn what_cannot_work_together_is_refused_with_its_reason() {
    let place = Place::with_model();
    let rpo = env!("CARGO_BIN_EXE_rpo");
    let refused = |n: usize, script: &str, expected: &[&str]| {
        let output = end(mpirun(&place, n)
            .args(["sh", "-c", script])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("mpirun"));
        let said = said(&output);
        assert!(!output.status.success() && expected.iter().all(|part| said.contains(part)), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "said once: {said}");
        assert!(!place.path("run").exists(), "nothing is begun");
    };
    let data = std::fs::read_to_string(place.path("data.jsonl")).expect("data");
    place.write("other/data.jsonl", &data.replacen("\"reward\":1", "\"reward\":3", 1));
    place.write("other/model/x", "");
    place.ok("init --config config.json --tokenizer tokenizer.json --seed 9 --out there/model");
    let run = RUN.replace("--data data.jsonl", "--data $D");
    refused(3, &format!("D=data.jsonl; exec {rpo} {RUN} --out run"), &["shards", "(1, 2, 4)"]);
    refused(2, &format!("exec {rpo} {RUN} --out run --max-steps"), &["--max-steps"]);
    place.write("bad.toml", "[train]\n\nbatch-size = 0\n");
    let wrong = "train kto --model model --data data.jsonl --out run";
    refused(2, &format!("exec {rpo} {wrong} --config bad.toml"), &["error: bad.toml, line 3: batch-size: 0"]);
    let at_1 = |what: &str| format!("[ ${} = 1 ] && {what}", rank_variable());
    refused(
        2,
        &format!("D=data.jsonl; {}; exec {rpo} {run} --out run", at_1("cd other && D=../missing.jsonl; true")),
        &["rank 1"],
    );
    refused(
        2,
        &format!("S=1; {}; exec {rpo} {RUN} --seed $S --out run", at_1("S=2")),
        &["rank 1", "train.seed: 1 on rank 0, 2 there"],
    );
    refused(
        2,
        &format!(
            "{}; exec {rpo} {RUN} --out run",
            at_1("mkdir -p here && cp -r model here/ && cp other/data.jsonl here/ && cd here")
        ),
        &["rank 1", "data: "],
    );
    std::fs::copy(place.path("data.jsonl"), place.path("there/data.jsonl")).expect("copied");
    refused(2, &format!("{}; exec {rpo} {RUN} --out run", at_1("cd there")), &["rank 1", "model: "]);
    // A command that is no work of several.
    refused(2, &format!("exec {rpo} convert data.jsonl --out run"), &["started 2 processes of `rpo convert`"]);
    let generate = format!("exec {rpo} generate --model model --input data.jsonl");
    refused(2, &generate, &["--output FILE"]);
}

#[test]
fn answers_are_shared_and_put_together_as_one_process_gives_them() {
    let place = Place::with_model();
    let generate = "generate --model model --input data.jsonl --sample --seed 3 -n 2 --max-new-tokens 6 --in-order";
    place.ok(&format!("{generate} --output one.jsonl"));
    let read = |name: &str| std::fs::read_to_string(place.path(name)).expect(name);
    for n in [2, 3] {
        let out = format!("by-{n}.jsonl");
        // Something is there of an earlier session.
        place.ok(&format!("{generate} --shard 2/{n} --output {out}.part-2-of-{n}"));
        let refused = on(&place, 4, &format!("{generate} --output {out}"));
        assert!(said(&refused).contains("another number of processes"), "{}", said(&refused));
        well(&on(&place, n, &format!("{generate} --output {out} --resume")));
        assert_eq!(read(&out), read("one.jsonl"));
        well(&on(&place, n, &format!("{generate} --output {out} --resume")));
        let refused = on(&place, n, &format!("{generate} --output {out}"));
        assert!(said(&refused).contains("already exists"), "{}", said(&refused));
        let left = std::fs::read_dir(place.0.path()).expect("place").flatten();
        let left: Vec<String> =
            left.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.contains("part-")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn runs_of_a_comparison_are_shared_and_judged_alike() {
    let place = Place::with_model();
    let compare =
        "compare --model model --data data.jsonl --objectives sft,rpo,kto --seeds 2 --max-steps 3 --batch-size 8";
    place.ok(&format!("{compare} --out one"));
    well(&on(&place, 3, &format!("{compare} --out three --cache other")));
    let figures = |out: &str| {
        let mut figures = json(&place, &format!("{out}/compare.json"));
        for model in figures["models"].as_array_mut().expect("models") {
            model.as_object_mut().expect("a model").remove("seconds");
        }
        figures
    };
    assert_eq!(figures("three"), figures("one"));
    assert!(place.path("three/report.html").is_file());
}

#[test]
fn models_of_an_evaluation_are_asked_together() {
    let place = Place::with_model();
    place.ok("init --config config.json --tokenizer tokenizer.json --seed 9 --out other");
    let evaluate = "evaluate --model a=model --model b=other --prompts data.jsonl --max-new-tokens 4";
    place.ok(&format!("{evaluate} --out one"));
    well(&on(&place, 2, &format!("{evaluate} --out two")));
    for name in ["a", "b"] {
        let answers = |out: &str| std::fs::read_to_string(place.path(out).join(format!("answers/{name}.jsonl")));
        assert_eq!(answers("two").expect("answers"), answers("one").expect("answers"));
    }
    assert!(place.path("two/evaluation.json").is_file());
}

#[test]
fn problems_and_runs_of_verify_are_shared() {
    let place = Place::new();
    let verify = "verify --seeds 2 --steps 2 --only 1,lengths";
    place.ok(&format!("{verify} --out one"));
    well(&on(&place, 3, &format!("{verify} --out three")));
    let figures = |out: &str| json(&place, &format!("{out}/verify.json"))["outcomes"].clone();
    assert!(figures("one").as_array().is_some_and(|outcomes| outcomes.len() > 10));
    assert_eq!(figures("three"), figures("one"));
}

#[test]
fn scores_are_shared_whatever_is_asked_of_them() {
    let place = Place::with_model();
    place.ok("init --config config.json --tokenizer tokenizer.json --seed 9 --out other");
    let score = "score --model model --reference other data.jsonl --micro-batch-tokens 64";
    for (i, more) in ["--cache", "--per-token --cache", "--no-cache", "--per-token --no-cache"].iter().enumerate() {
        let (alone, shared) = if more.ends_with("--cache") { (" alone", " shared") } else { ("", "") };
        place.ok(&format!("{score} {more}{alone} --output one-{i}.jsonl"));
        // The second takes from the cache what the first has left there.
        for n in [3, 2] {
            well(&on(&place, n, &format!("{score} {more}{shared} --output by-{n}-{i}.jsonl")));
            let read = |name: String| std::fs::read_to_string(place.path(&name)).expect("scores");
            assert_eq!(read(format!("by-{n}-{i}.jsonl")), read(format!("one-{i}.jsonl")), "{more}");
        }
    }
    let refused = said(&on(&place, 2, &format!("{score} - --output x.jsonl")));
    assert!(refused.contains("standard input goes to one of them"), "{refused}");
}

#[test]
fn questions_to_a_judge_that_computes_here_are_shared_and_asked_once() {
    let place = Place::with_model();
    place.ok("init --config config.json --tokenizer tokenizer.json --seed 9 --out other");
    let answer = "--prompts data.jsonl --max-new-tokens 6";
    place.ok(&format!("evaluate --model a=model --model b=other {answer} --out plain"));
    let judged = |line: &str, output: &Output| {
        well(output);
        let left = std::fs::read_dir(place.0.path()).expect("place").flatten();
        let left = left.filter(|e| e.file_name().display().to_string().contains("part-")).count();
        assert_eq!(left, 0, "{line}");
        let calls = std::fs::read_to_string(place.path("calls")).expect("calls").lines().count();
        std::fs::remove_file(place.path("calls")).expect("counted");
        calls
    };
    // A judge whose verdict depends on what it is asked, and that notes each call.
    place.write("judge.sh", "read line; echo x >> calls; expr ${#line} % 9 + 1\n");
    place.write("choose.sh", "read line; echo x >> calls; [ $(expr ${#line} % 2) = 0 ] && echo A || echo B\n");
    let with = |judge: &str, n: usize, line: &str| {
        let mut command = if n == 1 { place.command(env!("CARGO_BIN_EXE_rpo")) } else { mpirun(&place, n) };
        if n > 1 {
            command.arg(env!("CARGO_BIN_EXE_rpo"));
        }
        let output = command.args(line.split(' ')).args(["--judge-command", &format!("sh {judge}")]).output();
        judged(line, &output.expect("started"))
    };
    let read = |name: &str| std::fs::read_to_string(place.path(name)).expect(name);
    let rate = |out: &str| format!("rate plain/answers/a.jsonl --output {out}");
    let alone = with("judge.sh", 1, &rate("one.jsonl"));
    // A process that ended early has left what it was told, which nobody is asked again.
    let whole = read("one.jsonl.judge.jsonl");
    place.write("three.jsonl.judge.jsonl.part-2-of-4", &format!("{}\n", whole.lines().next().expect("a reply")));
    assert_eq!(with("judge.sh", 3, &rate("three.jsonl")), alone - 1);
    assert_eq!(read("three.jsonl"), read("one.jsonl"));
    let keys = |name: &str| {
        let key = |line: &str| line.split('"').nth(3).map(str::to_string);
        let mut keys: Vec<_> = read(name).lines().map(key).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys("three.jsonl.judge.jsonl"), keys("one.jsonl.judge.jsonl"));
    let evaluate = |out: &str| format!("evaluate --model a=model --model b=other {answer} --out {out}");
    assert_eq!(with("choose.sh", 3, &evaluate("shared")), with("choose.sh", 1, &evaluate("alone")));
    let judges = |out: &str| json(&place, &format!("{out}/evaluation.json"))["judges"].clone();
    assert_eq!(judges("shared"), judges("alone"));
    // One process cannot ask: all end soon, and what was replied is kept.
    place.write("fails.sh", "read line; mkdir first 2>/dev/null || exec sleep 100; exit 127\n");
    let began = Instant::now();
    let mut command = mpirun(&place, 2);
    command.arg(env!("CARGO_BIN_EXE_rpo")).args(rate("four.jsonl").split(' '));
    let failed = command.args(["--judge-parallel", "1", "--judge-command", "sh fails.sh"]).output().expect("started");
    let said = said(&failed);
    assert!(!failed.status.success() && began.elapsed() < SOON, "{said}");
    assert!(said.contains("replies so far are kept") && said.contains("cannot be run"), "{said}");
}

/// Two network namespaces that a line joins; they end with it.
struct Hosts(String);

impl Hosts {
    /// None without the means.
    fn new(rate: &str, latency: &str) -> Option<Self> {
        let hosts = Self(format!("rpo{}", std::process::id() % 100_000));
        let (a, b) = (hosts.name(0), hosts.name(1));
        let commands = [
            format!("ip netns add {a}"),
            format!("ip netns add {b}"),
            format!("ip link add {a} netns {a} type veth peer name {b} netns {b}"),
            format!("ip -n {a} addr add 10.77.0.1/24 dev {a}"),
            format!("ip -n {b} addr add 10.77.0.2/24 dev {b}"),
            format!("ip -n {a} link set {a} up"),
            format!("ip -n {b} link set {b} up"),
            format!("ip -n {a} link set lo up"),
            format!("ip -n {b} link set lo up"),
            format!("ip netns exec {a} tc qdisc add dev {a} root netem rate {rate} delay {latency}"),
            format!("ip netns exec {b} tc qdisc add dev {b} root netem rate {rate} delay {latency}"),
        ];
        let done = commands.iter().all(|line| {
            let mut words = line.split(' ');
            let command = Command::new(words.next().expect("a word")).args(words).output();
            command.is_ok_and(|output| output.status.success())
        });
        done.then_some(hosts)
    }

    fn name(&self, host: usize) -> String {
        format!("{}{}", self.0, ["a", "b"][host])
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in 0..2 {
            let _ = Command::new("ip").args(["netns", "del", &self.name(host)]).output();
        }
    }
}

#[test]
fn two_hosts_come_to_the_bytes_of_one() {
    if !*IS_OPEN {
        eprintln!("skipped: two hosts need OpenMPI's launcher, and {} is another", *LAUNCHER);
        return;
    }
    let place = Place::with_model();
    place.ok(&format!("{RUN} --out one"));
    for (rate, latency) in [("1gbit", "100us"), ("10gbit", "20us")] {
        let Some(hosts) = Hosts::new(rate, latency) else {
            eprintln!("skipped: two hosts need root, `ip netns` and `tc`");
            return;
        };
        let agent = place.path("agent.sh");
        place.write("agent.sh", &format!("#!/bin/sh\nshift\nexec ip netns exec {} sh -c \"$*\"\n", hosts.name(1)));
        std::fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
        let line = "10.77.0.0/24";
        let mut command = place.command("ip");
        command.args(["netns", "exec", &hosts.name(0), &LAUNCHER, "-n", "2", "--host", "10.77.0.1,10.77.0.2"]);
        command.args(["--mca", "plm_rsh_agent"]).arg(&agent).args(["--mca", "btl", "tcp,self"]);
        command.args(["--mca", "btl_tcp_if_include", line, "--mca", "oob_tcp_if_include", line]);
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.arg(env!("CARGO_BIN_EXE_rpo")).args(RUN.split_whitespace()).args(["--out", rate, "--cache", rate]);
        well(&command.output().expect("runs"));
        assert!(result(&place.path(rate)) == result(&place.path("one")), "at {rate}");
    }
}

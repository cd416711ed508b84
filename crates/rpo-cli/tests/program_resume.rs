//! Runs of `rpo generate` that are ended at any moment and go on, and parts of a run that are put together.

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::Place;

const RUN: &str = "generate --model model --preset plain --sample -n 2 --max-new-tokens 24 --input p.jsonl";

/// A place with so many prompts, in which `whole.jsonl` has the answers in order.
fn place(prompts: usize) -> Place {
    let place = Place::with_model();
    let words = ["say", "yes", "no", "please", "thanks"];
    let prompt = |i: usize| (0..=i % 7).map(|k| words[(i + k * k) % 5]).collect::<Vec<_>>().join(" ");
    let rows = (0..prompts).map(|i| format!("{{\"prompt\":\"{}\"}}\n", prompt(i)));
    place.write("p.jsonl", &rows.collect::<String>());
    place.ok(&format!("{RUN} --output whole.jsonl --in-order"));
    place
}

fn read(place: &Place, name: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(place.path(name)).expect("a file")).into_owned()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn whatever_is_left_of_a_file_a_run_goes_on_and_ends_with_the_same_bytes() {
    let place = place(6);
    let whole = read(&place, "whole.jsonl");
    assert_eq!(whole.lines().count(), 12);
    let begun = read(&place, "whole.jsonl.run.json");
    let line = whole.find('\n').expect("lines") + 1;
    for kept in [0, 1, line - 1, line, line + 1, whole.len() / 2, whole.len() - 1, whole.len()] {
        place.write("part.jsonl", &whole[..kept]);
        place.write("part.jsonl.run.json", &begun);
        let output = place.run(&format!("{RUN} --output part.jsonl --in-order --batch-size 3 --resume"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(read(&place, "part.jsonl"), whole, "after {kept} bytes");
        let torn = kept > 0 && !whole[..kept].ends_with('\n');
        assert_eq!(said.contains("no whole answer and were dropped"), torn, "{kept}: {said}");
    }
    place.ok(&format!("{RUN} --output fresh.jsonl --in-order --resume"));
    assert_eq!(read(&place, "fresh.jsonl"), whole, "there was nothing yet");
    // A hole at the end, as a machine leaves that lost its power.
    place.write("part.jsonl", &format!("{}\0\0\0\n\0\0", &whole[..line]));
    place.ok(&format!("{RUN} --output part.jsonl --in-order --resume"));
    assert_eq!(read(&place, "part.jsonl"), whole);
}

#[test]
fn a_run_goes_on_as_it_was_begun_or_says_what_differs() {
    let place = place(4);
    let resume = format!("{RUN} --output whole.jsonl --in-order --resume");
    for (other, told) in [
        (resume.replace("-n 2", "-n 2 --best-of 3"), "drawn: 2 then, 3 now"),
        (resume.replace("--in-order", ""), "in-order: true then, false now"),
        (resume.replace("24", "25"), "decoding.max-new-tokens: 24 then, 25 now"),
        (format!("{resume} --seed 7"), "decoding.seed: 42 then, 7 now"),
        (format!("{resume} --temperature 0.7"), "decoding.processors.temperature: 1.0 then, 0.7 now"),
        (format!("{resume} --stop yes"), "stop: [] then, [\"yes\"] now"),
        (format!("{resume} --shard 1/2"), "shard: \"1/1\" then, \"1/2\" now"),
        (format!("{resume} --max-prompt-tokens 99"), "max-prompt-tokens: 512 then, 99 now"),
    ] {
        let said = place.complaint(&other.replace("  ", " "));
        assert!(said.contains("whole.jsonl was begun otherwise") && said.contains(told), "{said}");
        assert_eq!(said.matches(" then, ").count(), 1, "{said}");
    }
    place.ok(&format!("{resume} --batch-size 1"));
    let whole = read(&place, "whole.jsonl");
    place.ok("init --config config.json --tokenizer tokenizer.json --out other --seed 5");
    assert!(place.complaint(&resume.replace("--model model", "--model other")).contains("model-fingerprint: "));
    std::fs::rename(place.path("model"), place.path("moved")).expect("moved");
    place.ok(&resume.replace("--model model", "--model moved"));
    let resume = resume.replace("--model model", "--model moved");
    let prompts = read(&place, "p.jsonl");
    place.write("p.jsonl", &prompts.replacen("say", "no", 1));
    assert!(place.complaint(&resume).contains("prompts-fingerprint: "));
    place.write("p.jsonl", &prompts);

    place.write("whole.jsonl", &format!("{whole}{}\n", whole.lines().next().expect("a line")));
    assert!(place.complaint(&resume).contains("whole.jsonl, line 9: this answer is there twice"));
    place.write("whole.jsonl", &format!("somebody's\n{whole}"));
    assert!(place.complaint(&resume).contains("whole.jsonl, line 1: not an answer of this program"));
    place.write("whole.jsonl", &whole.replacen("\"id\":3", "\"id\":4", 1));
    assert!(place.complaint(&resume).contains("it is no answer to a prompt of this run"));
    place.write("whole.jsonl", &whole);
    let held = std::fs::File::open(place.path("whole.jsonl")).expect("a file");
    held.lock().expect("locked");
    assert!(place.complaint(&resume).contains("whole.jsonl: another program is writing it"));
    drop(held);
    std::fs::remove_file(place.path("whole.jsonl.run.json")).expect("removed");
    assert!(place.complaint(&resume).contains("whole.jsonl.run.json is missing"));
    assert_eq!(read(&place, "whole.jsonl"), whole, "nothing of it was touched");
}

#[test]
#[cfg(unix)]
fn killed_at_any_moment_no_answer_is_lost_or_doubled() {
    let place = place(120);
    let whole = read(&place, "whole.jsonl");
    for (name, order) in [("ordered.jsonl", " --in-order"), ("loose.jsonl", "")] {
        let run = format!("{RUN} --output {name} --resume --batch-size 5{order}");
        // Numbers that look random: it is killed when it has written so many bytes more.
        let (mut state, mut kills) = (name.len() as u64, 0);
        let length = || std::fs::metadata(place.path(name)).map_or(0, |file| file.len());
        let ended = loop {
            let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
            let mut child = command.args(run.split(' ')).stderr(Stdio::null()).spawn().expect("runs");
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let enough = length() + (state >> 33) % 2000;
            if kills == 20 {
                break child.wait().expect("ends");
            }
            let status = loop {
                match child.try_wait().expect("child") {
                    None if length() < enough => std::thread::sleep(Duration::from_micros(200)),
                    status => break status,
                }
            };
            if let Some(status) = status {
                break status;
            }
            let signal = ["-KILL", "-KILL", "-INT"][kills % 3];
            Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
            child.wait().expect("ends");
            kills += 1;
        };
        assert!(ended.success() && kills > 0, "{kills} kills");
        let found = read(&place, name);
        match order {
            "" => assert_eq!(sorted(&found), sorted(&whole)),
            _ => assert_eq!(found, whole),
        }
    }
}

#[test]
#[cfg(unix)]
fn a_full_disk_loses_nothing() {
    let place = place(20);
    let whole = read(&place, "whole.jsonl");
    // A file may have some kilobytes, as if the disk had no more.
    let run = format!("{RUN} --output part.jsonl --in-order");
    let rpo = env!("CARGO_BIN_EXE_rpo");
    let limited = format!("trap '' XFSZ; ulimit -f 5; exec {rpo} {run}");
    let output = place.command("sh").args(["-c", &limited]).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot write part.jsonl; "), "{said}");
    let part = read(&place, "part.jsonl");
    assert!(part.ends_with('\n') && part.len() > 1000 && whole.starts_with(&part), "whole lines: {part}");
    assert!(said.contains(&format!("{} answers are in it, and the same command", part.lines().count())), "{said}");
    place.ok(&format!("{run} --resume"));
    assert_eq!(read(&place, "part.jsonl"), whole);

    let full = format!("{rpo} {RUN} --json > /dev/full");
    let output = place.command("sh").args(["-c", &full]).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !cfg!(target_os = "linux") || said.contains("error: cannot write the answers to standard output: "),
        "{said}"
    );
}

#[test]
fn parts_together_are_the_whole_and_what_is_missing_is_named() {
    let place = place(10);
    let whole = read(&place, "whole.jsonl");
    for part in 1..=4 {
        place.ok(&format!("{RUN} --shard {part}/4 --output part-{part}.jsonl"));
    }
    assert_eq!(read(&place, "part-2.jsonl").lines().count(), 6, "prompts 1, 5 and 9");
    let all = "part-3.jsonl part-1.jsonl part-4.jsonl part-2.jsonl";
    place.ok(&format!("merge all.jsonl {all}"));
    assert_eq!(read(&place, "all.jsonl"), whole);
    place.ok(&format!("{RUN} --output all.jsonl --in-order --resume"));
    assert!(place.complaint(&format!("merge all.jsonl {all}")).contains("all.jsonl already exists"));
    let refused = |parts: &str| place.complaint(&format!("merge new.jsonl {parts}"));
    assert!(refused("part-1.jsonl part-4.jsonl").contains("parts 2/4, 3/4 are missing"));
    assert!(refused("part-1.jsonl part-2.jsonl part-4.jsonl").contains("part 3/4 is missing"));
    assert!(refused("part-1.jsonl part-1.jsonl").contains("are both part 1/4"));
    assert!(refused("part-1.jsonl nowhere.jsonl").contains("there is no nowhere.jsonl"));
    assert!(refused("part-1.jsonl whole.jsonl").contains("shard: 1/4 then, 1/1 now"));
    assert!(refused("p.jsonl").contains("p.jsonl.run.json is missing"));
    place.ok(&format!("{RUN} --shard 3/4 --output other.jsonl --seed 3"));
    assert!(refused("part-1.jsonl other.jsonl").contains("decoding.seed: 42 then, 3 now"));
    let part = read(&place, "part-2.jsonl");
    let lines: Vec<&str> = part.lines().collect();
    place.write("part-2.jsonl", &format!("{}\n{}", lines[..4].join("\n"), &lines[4][..9]));
    let said = refused(all);
    assert!(said.contains("part-2.jsonl: 2 of its answers are missing") && said.contains("--shard 2/4"), "{said}");
    place.write("part-2.jsonl", &format!("{part}{}\n", lines[0]));
    assert!(refused(all).contains("part-2.jsonl, line 7: this answer is there twice"));
    assert!(!place.path("new.jsonl").exists());
    place.write("part-2.jsonl", &format!("{}\n", lines[..4].join("\n")));
    place.ok(&format!("{RUN} --shard 2/4 --output part-2.jsonl --resume"));
    place.ok(&format!("merge new.jsonl {all}"));
    assert_eq!(read(&place, "new.jsonl"), whole);
}

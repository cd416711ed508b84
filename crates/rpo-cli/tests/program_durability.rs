//! Runs of `rpo train` that are killed, or whose machine loses its power, at any moment: nothing that was said to be saved is
//! lost, and the run ends as one that nothing happened to, bit for bit.
//!
//! `RPO_KILLS=300` and `RPO_CUTS=200` make it last; a loss of power is played on file systems in a file, for which one must be
//! root and have `xfsprogs` (it is said if not).

#![cfg(unix)]

mod common;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{Place, names};

const RUN: &str = "train dro --model model --data data.jsonl --max-steps 12 --batch-size 8 --validate-every 4 \
                   --save-every 1 --learning-rate 0.01 --sample-every 6 --verbose";

/// How often, unless `variable` says otherwise.
fn times(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |n| n.parse().expect("a number"))
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// What a run left that must not depend on what happened to it.
#[derive(Debug, PartialEq)]
struct Left {
    /// Hashes of weights and of the optimizer's state, by file.
    states: Vec<(&'static str, u64)>,
    record: Vec<serde_json::Value>,
}

fn result(run: &Path) -> Left {
    let read = |name: &str| std::fs::read(run.join(name)).expect(name);
    let record = String::from_utf8(read("metrics.jsonl")).expect("text");
    let without_time = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line.as_object_mut().expect("object").remove("seconds");
        line
    };
    let hash = |name: &'static str| {
        let mut hasher = DefaultHasher::new();
        read(name).hash(&mut hasher);
        (name, hasher.finish())
    };
    let states = ["last/model.safetensors", "last/resume/optimizer.safetensors", "best/model.safetensors"].map(hash);
    Left { states: states.to_vec(), record: record.lines().map(without_time).collect() }
}

/// A run that goes on from whatever is in `run`, and the steps of which it says that they are saved, as it says so.
fn start(place: &Place, run: &Path) -> (Child, Receiver<usize>) {
    let arguments = match run.join("config.toml").is_file() {
        true => format!("train --resume {} --verbose", run.display()),
        false => format!("{RUN} --out {}", run.display()),
    };
    let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
    command.args(arguments.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("runs");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let (tell, saved) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if std::env::var_os("RPO_SHOW").is_some() {
                println!("{line}");
            }
            let step = line.split("saved after step ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
            if let Some(step) = step {
                let _ = tell.send(step);
            }
        }
    });
    (child, saved)
}

/// The step from which the run in `run` would go on.
fn saved_step(run: &Path) -> Option<usize> {
    let earlier = std::fs::read_dir(run.join("earlier")).into_iter().flatten().flatten().map(|entry| entry.path());
    let states = [run.join("last")].into_iter().chain(earlier);
    let step = |state: PathBuf| -> Option<usize> {
        let text = std::fs::read_to_string(state.join("resume/progress.json")).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()?["step"].as_u64().map(|step| step as usize)
    };
    states.filter_map(step).max()
}

/// Waits for the end, but not longer than until `at`; whether it ended well.
fn ended(child: &mut Child, at: Instant) -> Option<bool> {
    loop {
        if let Some(status) = child.try_wait().expect("child") {
            return Some(status.success());
        }
        if Instant::now() >= at {
            return None;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// A place, what an undisturbed run in it comes to, and how long one takes.
fn undisturbed() -> (Place, Left, Duration) {
    let place = Place::with_model();
    // All but the first have the reference scores in the cache.
    let took = ["first", "whole", "again"].map(|out| {
        let began = Instant::now();
        place.ok(&format!("{RUN} --out {out}"));
        began.elapsed()
    });
    let took = took.into_iter().min().expect("three");
    let whole = result(&place.path("whole"));
    assert_eq!(names(&place.path("whole/earlier")).len(), 1, "two states are kept");
    assert_eq!(whole, result(&place.path("first")));
    (place, whole, took)
}

#[test]
fn killed_at_any_moment_a_run_goes_on_and_ends_as_if_nothing_had_been() {
    let (place, whole, took) = undisturbed();
    let (kills, mut random) = (times("RPO_KILLS", 12), Random(7));
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        runs += 1;
        let run = place.path(&format!("run-{runs}"));
        loop {
            let (mut child, saved) = start(&place, &run);
            let wait = Duration::from_micros(random.below(took.as_micros() as u64));
            match ended(&mut child, Instant::now() + wait) {
                Some(well) => {
                    assert!(well, "{} can neither be begun nor gone on with", run.display());
                    break;
                }
                None => {
                    child.kill().expect("killed");
                    child.wait().expect("ended");
                    killed += 1;
                    let announced = saved.iter().max();
                    assert!(saved_step(&run) >= announced, "{announced:?} was announced in {}", run.display());
                }
            }
        }
        assert_eq!(result(&run), whole, "{}", run.display());
    }
    println!("{killed} kills in {runs} runs");
}

/// A file system in a file, on which a loss of power can be played: what was not made durable is gone.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    options: &'static str,
}

fn succeeds(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    let said = || format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(said()) }
}

impl Disk {
    fn new(kind: &str, options: &'static str, dir: &Path) -> Result<Self, String> {
        let (image, mount) = (dir.join(format!("{kind}.img")), dir.join(kind));
        std::fs::create_dir(&mount).map_err(|e| e.to_string())?;
        let file = std::fs::File::create(&image).and_then(|file| file.set_len(320 << 20));
        file.map_err(|e| e.to_string())?;
        let disk = Self { image, mount, options };
        succeeds(&format!("mkfs.{kind}"), &["-q", &disk.image.to_string_lossy()])?;
        succeeds("xfs_io", &["-V"])?;
        disk.on()?;
        Ok(disk)
    }

    fn on(&self) -> Result<(), String> {
        let (image, mount) = (self.image.to_string_lossy(), self.mount.to_string_lossy());
        succeeds("mount", &["-o", self.options, &image, &mount])
    }

    /// From now on nothing reaches the disk, neither data nor the file system's own log.
    fn cut(&self) {
        succeeds("xfs_io", &["-x", "-c", "shutdown", &self.mount.to_string_lossy()]).expect("shut down");
    }

    fn off(&self) {
        let mount = self.mount.to_string_lossy();
        // What was killed may hold it for a moment.
        let off = (0..100).any(|_| {
            let off = succeeds("umount", &[&mount]).is_ok();
            if !off {
                std::thread::sleep(Duration::from_millis(20));
            }
            off
        });
        assert!(off, "{mount} is in use");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = succeeds("umount", &["-l", &self.mount.to_string_lossy()]);
    }
}

#[test]
fn no_loss_of_power_takes_what_was_said_to_be_saved() {
    let (place, whole, took) = undisturbed();
    let mut random = Random(11);
    for (kind, options) in [("xfs", "loop"), ("ext4", "loop,noauto_da_alloc,commit=30")] {
        let disk = match Disk::new(kind, options, place.0.path()) {
            Ok(disk) => disk,
            Err(problem) => {
                println!("skipped on {kind}: a loss of power cannot be played here: {problem}");
                continue;
            }
        };
        let (cuts, mut cut, mut runs) = (times("RPO_CUTS", 6) / 2, 0, 0);
        while cut < cuts {
            runs += 1;
            let run = disk.mount.join(format!("run-{runs}"));
            loop {
                let (mut child, saved) = start(&place, &run);
                let wait = Duration::from_micros(random.below(took.as_micros() as u64));
                let ended = ended(&mut child, Instant::now() + wait);
                assert_ne!(ended, Some(false), "{} can neither be begun nor gone on with", run.display());
                disk.cut();
                let announced: Vec<usize> = saved.try_iter().collect();
                let _ = child.kill();
                child.wait().expect("ended");
                cut += 1;
                disk.off();
                disk.on().expect("mounted");
                let announced = announced.into_iter().max();
                assert!(saved_step(&run) >= announced, "{announced:?} was announced in {}", run.display());
                if ended.is_some() {
                    break;
                }
            }
            assert_eq!(result(&run), whole, "{}", run.display());
            std::fs::remove_dir_all(&run).expect("removed");
        }
        println!("{cut} losses of power on {kind} in {runs} runs");
    }
}

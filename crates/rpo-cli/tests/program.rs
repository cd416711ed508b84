//! The program as a person uses it, on a tiny model that the tests write themselves: what it makes, and what it says when
//! something is wrong.

mod common;

use std::path::Path;
use std::process::Command;

use common::{CONFIG, Place, TRAIN, names};

#[test]
fn train_generate_and_resume() {
    let place = Place::with_model();
    let said = place.ok(&format!("{TRAIN} --published --max-steps 6 --batch-size 8 --learning-rate 0.01"));
    let config = std::fs::read_to_string(place.path("run/config.toml")).expect("settings");
    for set in ["tau = 5.0", "partition = \"sum\"", "log-prob = \"mean\"", "warmup-steps = 150", "learning-rate = 0.01"]
    {
        assert!(config.contains(set), "{set}: {config}");
    }
    assert!(said.contains("held-out loss:") && said.contains("reference scores: computed and cached"), "{said}");
    assert_eq!(
        names(&place.path("run")),
        ["best", "config.toml", "earlier", "last", "metrics.jsonl", "run.json", "run.lock", "tensorboard"]
    );
    let answer = place.ok("generate --model run/best --max-new-tokens 5 say");
    assert!(!answer.trim().is_empty());
    assert_eq!(answer, place.ok("generate --model run/best --max-new-tokens 5 say"), "the same every time");
    let both = place.ok("generate --model run/last --sample --temperature 0.7 --top-p 0.9 --max-new-tokens 5 say yes");
    assert_eq!(both.matches("->").count(), 2);

    let again = place.ok("train rpo --config run/config.toml --out other");
    assert!(again.contains("taken from the cache"), "{again}");
    assert_eq!(
        std::fs::read(place.path("run/last/model.safetensors")).expect("weights"),
        std::fs::read(place.path("other/last/model.safetensors")).expect("weights"),
        "the saved settings say all"
    );

    let resumed = place.ok("train rpo --config run/config.toml --resume --max-steps 8");
    assert!(resumed.contains("going on after step 6"), "{resumed}");
    place.ok("train sft --model run/best --data data.jsonl --out sft --rows best --max-steps 2");
}

#[test]
fn mistakes_are_explained() {
    let place = Place::with_model();
    place.write("bad.jsonl", "{\"prompt\":\"say\",\"response\":\"yes\",\"reward\":1}\n{\"prompt\":\"say\",\"response\":\"no\",\"reward\":\"neutral\"}\n");
    place.write("bert.json", &CONFIG.replace("\"t5\"", "\"bert\""));
    place.write("narrow.json", &CONFIG.replace("64,\"d_model\"", "4,\"d_model\""));
    place.write("misspelt.toml", "[train]\nbatchsize = 3\n");
    place.write("empty.jsonl", "");
    let row = |i: usize| format!("{{\"prompt\":\"say {}\",\"response\":\"yes\",\"reward\":1}}\n", "no ".repeat(i));
    place.write("equal.jsonl", &(0..20).map(row).collect::<String>());
    let single = |i: usize| row(i).replace("1}", &format!("{i}}}"));
    place.write("single.jsonl", &(0..20).map(single).collect::<String>());
    for (arguments, said) in [
        ("train rpo --model nowhere --data data.jsonl --out x", "no model `nowhere`"),
        ("train rpo --model some/model --data data.jsonl --out x", "HF_HUB_OFFLINE"),
        ("train rpo --model model --data nowhere.jsonl --out x", "nowhere.jsonl"),
        ("train rpo --model model --data bad.jsonl --out x", "bad.jsonl, line 2: `reward`"),
        ("train rpo --model model --data empty.jsonl --out x", "no rated response"),
        ("train rpo --model model --data equal.jsonl --out x", "rewards equal 1"),
        ("train group-centred --model model --data single.jsonl --out x", "single response"),
        ("train rpo --model model --data single.jsonl --out x --single-response drop", "single response"),
        ("train rpo --model model --out x", "missing: data (--data)"),
        ("train rpo --model model --data data.jsonl --out model", "already exists"),
        ("train rpo --model model --data data.jsonl --out x --tau 0", "tau: 0 is not a positive number"),
        ("train rpo --model model --data data.jsonl --out x --batch-size 0", "batch-size"),
        ("train rpo --model model --data data.jsonl --out x --validation-fraction 1", "validation-fraction"),
        ("train group-centred --model model --data data.jsonl --out x --batch-size 1", "compares the responses"),
        (
            "train kto --model model --data data.jsonl --out x --set objective.threshold=median",
            "`prompt-mean`, a number",
        ),
        ("train kto --model model --data data.jsonl --out x --beta 0", "beta: 0 is not a positive number"),
        (
            "train kto --model model --data data.jsonl --out x --tau 1",
            "--tau: objective.tau: there is no such setting of kto",
        ),
        ("train dro --model model --data data.jsonl --out x --set tau", "NAME=VALUE"),
        ("train rpo --model model --data data.jsonl --out x --device abacus", "possible values: cpu, cuda"),
        ("train rpo --model model --data data.jsonl --out x --config misspelt.toml", "batchsize"),
        ("train rpo --model model --data data.jsonl --out x --best-by reward", "best-by: `reward` needs"),
        ("train rpo --model model --data data.jsonl --out x --best-by luck", "possible values: loss, tau-b"),
        ("train rpo --model model --data data.jsonl --out x --patience 0", "patience: 0"),
        (
            "train rpo --model model --data data.jsonl --out x --patience 2 --validation-fraction 0",
            "no held-out prompts",
        ),
        (
            "train rpo --model model --data data.jsonl --out x --judge cat --validation-fraction 0",
            "no held-out prompts",
        ),
        ("train rpo --model model --data single.jsonl --out x --best-by tau-b", "two with different rewards"),
        ("init --config bert.json --tokenizer tokenizer.json --out x", "model_type `bert`"),
        ("init --config narrow.json --tokenizer tokenizer.json --out x", "not made for each other"),
        ("init --config config.json --tokenizer config.json --out x", "not a usable tokenizer.json"),
        ("init --config config.json --tokenizer tokenizer.json --out model", "already exists"),
        ("generate --model model --input empty.jsonl", "holds no prompt"),
        ("generate --model model --sample --top-p 0 say", "top-p"),
    ] {
        let complaint = place.complaint(arguments);
        assert!(complaint.contains(said), "{arguments}: {complaint}");
        assert!(!place.path("x").exists(), "{arguments}: nothing is left in the way of the next attempt");
    }
}

#[test]
fn harm_is_shown_and_the_start_may_win() {
    let place = Place::with_model();
    let harmful = "train group-centred --model model --data data.jsonl --batch-size 8 --learning-rate 0.3 --warmup-steps 0 \
                   --validate-every 1 --max-steps 6";
    let said = place.ok(&format!("{harmful} --out run --patience 2 --sample-every 1"));
    for expected in [
        "advice: rpo train rpo (compare with kto)",
        "step 0: held-out loss",
        "mass_kept 1.000  log_prob best -",
        "tau_b",
        "stopped after step 2: no new best in 2 validations",
        "no step was better than the start by held-out loss",
        "use the start: model",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("try it") && !said.contains("(best)"), "{said}");
    assert!(said.lines().filter(|line| line.starts_with("step ")).all(|line| line.len() <= 120), "{said}");
    assert_eq!(
        names(&place.path("run")),
        ["config.toml", "earlier", "last", "metrics.jsonl", "run.json", "run.lock", "tensorboard"]
    );
    let record = std::fs::read_to_string(place.path("run/metrics.jsonl")).expect("record");
    assert_eq!(record.lines().filter(|line| line.contains("\"split\":\"sample\"")).count(), 3 * 2);
    let events: Vec<u8> = names(&place.path("run/tensorboard"))
        .iter()
        .flat_map(|name| std::fs::read(place.path("run/tensorboard").join(name)).expect("events"))
        .collect();
    let holds = |part: &[u8]| events.windows(part.len()).any(|w| w == part);
    assert!(holds(b"validation/mass_kept") && holds(b"train/kl_estimate") && holds(b"sample/2") && holds(b"Prompt:"));
    let again = place.ok("train group-centred --config run/config.toml --resume");
    assert!(again.contains("stopped after step 2") && !again.contains("interrupted"), "{again}");

    place.write("judge.sh", "while read line; do echo ${#line}; done");
    let judged = place.ok(
        "train rpo --model model --data data.jsonl --out judged --max-steps 2 --best-by reward --judge sh\u{a0}judge.sh",
    );
    assert!(judged.contains("  reward ") && judged.contains("by reward"), "{judged}");
    let complaint = place.complaint("train rpo --config judged/config.toml --out broken --judge false");
    assert!(complaint.contains("the judge `false` ended with"), "{complaint}");
}

#[test]
fn settings_and_data_that_do_harm_are_warned_of() {
    let place = Place::with_model();
    let said = |arguments: &str| {
        let output = place.run(&format!("train {arguments} --model model --max-steps 1"));
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{arguments}: {err}");
        (out, err)
    };
    let row =
        |i: usize, responses: &str| format!("{{\"prompt\":\"say {}\",\"responses\":[{responses}]}}\n", "no ".repeat(i));
    let rated = |text: &str, reward: f64| format!("{{\"text\":\"{text}\",\"reward\":{reward:?}}}");
    let graded = |i: usize| {
        let other = "please ".repeat(i + 1);
        row(i, &[rated(&other, i as f64), rated(&format!("thanks {other}"), 0.5)].join(","))
    };
    place.write("graded.jsonl", &(0..20).map(graded).collect::<String>());
    let thumbs = |i: usize| row(i, &rated("yes", (i % 2) as f64));
    place.write("thumbs.jsonl", &(0..20).map(thumbs).collect::<String>());
    let far = |i: usize| row(i, &rated("yes", if i == 7 { 1e12 } else { (i % 5) as f64 }));
    place.write("far.jsonl", &(0..20).map(far).collect::<String>());

    let (out, err) = said("rpo --data graded.jsonl --out a --partition sum");
    assert!(err.contains("warning: the partition of the paper") && err.contains("2.0 a prompt"), "{err}");
    assert!(out.contains("advice: rpo train rpo: 20 of 20 prompts have"), "{out}");
    let (_, err) = said("sft --data thumbs.jsonl --out b --rows best");
    assert!(err.contains("10 of 20 such responses are rated below"), "{err}");
    let (_, err) = said("sft --data far.jsonl --out c");
    assert!(err.contains("the reward 1000000000000.0 of response 1 of prompt 8"), "{err}");
    let inspected = place.ok("inspect data far.jsonl --tokenizer model");
    assert!(
        inspected.contains("of response 1 of prompt 8") && inspected.contains("advice: rpo train rpo"),
        "{inspected}"
    );
    // Healthy data, and the same answers to every prompt.
    let (_, err) = said("rpo --data graded.jsonl --out d");
    assert!(!err.contains("warning"), "{err}");
    let (_, err) = said("rpo --data data.jsonl --out e --partition sum");
    assert!(!err.contains("warning"), "{err}");

    let config = std::fs::read_to_string(place.path("model/config.json")).expect("configuration");
    place.write("model/config.json", &config.replacen('{', "{\"dropout_rate\": 0.1,", 1));
    let (out, _) = said("kto --data data.jsonl --out f");
    assert!(out.contains("note: the model's config.json has dropout_rate 0.1"), "{out}");
}

#[test]
fn objectives_are_compared() {
    let place = Place::with_model();
    place.write(
        "compare.toml",
        "[objectives.gentle]\nname = \"rpo\"\ntau = 9.0\n[objectives.paired]\nname = \"kto\"\nthreshold = { at-least = 1 }\n",
    );
    // Longer answers are better.
    let judge = "while read line; do echo ${#line}; done";
    place.write("judge.sh", judge);
    let said = place
        .ok("compare --model model --data data.jsonl --out result --config compare.toml --seeds 2 --max-steps 2 \
         --validation-fraction 0.5 --max-new-tokens 4 --objectives sft,gentle,paired,dro --judge sh\u{a0}judge.sh");
    for expected in
        ["== gentle, learning rate 0.0001, seed 43 ==", "mean reward", "tau-b", "report: result/report.html"]
    {
        assert!(said.contains(expected), "{said}");
    }
    let all = ["compare.json", "dro-42", "dro-43", "gentle-42", "gentle-43", "paired-42", "paired-43", "report.html"];
    assert_eq!(names(&place.path("result"))[..8], all);
    let json = std::fs::read_to_string(place.path("result/compare.json")).expect("figures");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["models"][2]["label"], "gentle");
    assert_eq!(json["models"][2]["rewards"].as_array().map(Vec::len), Some(10));
    assert_eq!((&json["models"][0]["runs"], &json["models"][2]["reward"]["n"]), (&2.into(), &10.into()));
    let model = json["models"][2]["judged"][1]["name"].as_str().expect("judged");
    assert!(place.path("result/gentle-43").join(model).is_dir() && said.contains(&format!("{model} (step ")), "{said}");
    let config = std::fs::read_to_string(place.path("result/gentle-43/config.toml")).expect("settings");
    assert!(config.contains("tau = 9.0") && config.contains("seed = 43"), "{config}");

    // Several learning rates: chosen on one half of the held-out prompts, judged on the other.
    let said = place.ok(
        "compare --model model --data data.jsonl --out chosen --max-steps 2 --validation-fraction 0.5 --objectives sft,rpo \
         --learning-rates 0.001,0.01",
    );
    assert!(said.contains("== rpo, learning rate 0.01, seed 42 =="), "{said}");
    let json = std::fs::read_to_string(place.path("chosen/compare.json")).expect("figures");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["judged_on"].as_array().map(Vec::len), Some(5));
    assert!(place.path("chosen/rpo-0.01-42/last").is_dir());

    let common = "compare --model model --data data.jsonl --max-steps 1 --out";
    for (arguments, said) in [
        (format!("{common} result"), "already exists"),
        (format!("{common} x --resume"), "no comparison was begun"),
        (format!("{common} x --objectives sft --set objective.tau=3"), "objective.tau: no compared objective"),
        (format!("{common} x --learning-rate 0.1 --learning-rates 0.1"), "leave out --learning-rate"),
        (format!("{common} x --objectives sft,ppo"), "no objective `ppo`"),
        (format!("{common} x --seeds 0"), "--seeds 0"),
        (format!("{common} x --set train.patience=2"), "train.patience: contestants train for equal steps"),
        (format!("{common} x --validation-fraction 0"), "nothing to compare on"),
        (format!("{common} x --objectives sft --judge false"), "the judge `false` ended with"),
    ] {
        let complaint = place.complaint(&arguments);
        assert!(complaint.contains(said), "{arguments}: {complaint}");
    }
}

#[cfg(unix)]
#[test]
fn the_judge_sees_prompts_as_they_were_written_and_each_draw_apart() {
    let place = Place::with_model();
    let prompts: Vec<String> = (0..6).map(|i| format!("say\n{{yes}}  {}", "no ".repeat(i))).collect();
    let row = |prompt: &String| {
        let responses = serde_json::json!([{"text": "yes", "reward": 1}, {"text": "no", "reward": 0}]);
        format!("{}\n", serde_json::json!({"prompt": prompt, "responses": responses}))
    };
    place.write("odd.jsonl", &prompts.iter().map(row).collect::<String>());
    place.write("judge.sh", "tee -a seen.jsonl | while read -r line; do echo ${#line}; done");
    let said = place.ok("compare --model model --data odd.jsonl --out odd --max-steps 1 --validation-fraction 0.5 \
         --max-new-tokens 4 --objectives sft,rpo --seeds 2 --set objective.tau=3 --judge sh\u{a0}judge.sh");
    assert!(said.contains("objective.tau = 3: applied to rpo; not to sft"), "{said}");
    let config = std::fs::read_to_string(place.path("odd/rpo-43/config.toml")).expect("settings");
    assert!(config.contains("tau = 3.0"), "{config}");
    let seen = std::fs::read_to_string(place.path("seen.jsonl")).expect("seen");
    let seen: Vec<serde_json::Value> = seen.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    // Three held-out prompts, two draws each of start, sft and rpo.
    assert_eq!(seen.len(), 3 * 2 * 3);
    assert!(seen.iter().all(|line| prompts.iter().any(|p| line["prompt"] == p.as_str())), "{seen:?}");
    let answers = |draw: usize| -> Vec<&serde_json::Value> {
        seen[3 * draw..3 * (draw + 1)].iter().map(|line| &line["response"]).collect()
    };
    assert_ne!(answers(0), answers(1), "the start's draws have seeds of their own");
}

/// `compare.json` without times, which no two runs have in common.
fn figures(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).expect("figures");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let models = json["models"].as_array_mut().expect("models");
    models.iter_mut().for_each(|model| model["seconds"] = serde_json::Value::Null);
    json
}

#[cfg(unix)]
#[test]
fn a_comparison_goes_on_after_a_stop() {
    let place = Place::with_model();
    place.write("judge.sh", "while read -r line; do echo ${#line}; done");
    let command = "compare --model model --data data.jsonl --out result --max-steps 3 --validation-fraction 0.5 \
         --max-new-tokens 4 --objectives sft,rpo --learning-rate 0.01 --judge sh\u{a0}judge.sh";
    place.ok(command);
    let whole = figures(&place.path("result/compare.json"));
    let remove = |name: &str| std::fs::remove_dir_all(place.path(name)).expect("remove");
    remove("result/rpo-42");
    std::fs::remove_file(place.path("result/compare.json")).expect("remove");
    // A run that was stopped before it had saved anything.
    std::fs::create_dir_all(place.path("result/rpo-42/tensorboard")).expect("create");
    place.write("result/rpo-42/run.lock", "");
    let said = place.ok(&format!("{command} --resume"));
    assert_eq!(said.matches("trained and judged before").count(), 1, "{said}");
    assert_eq!(figures(&place.path("result/compare.json")), whole);

    for (change, said) in [
        ("--learning-rate 0.02", "train.optimizer.learning-rate: 0.01 then, 0.02 now"),
        ("--max-steps 4", "train.max-steps: 3 then, 4 now"),
        ("--max-new-tokens 5", "decoding.max-new-tokens: 4 then, 5 now"),
        ("--judge cat", "judge: \"sh judge.sh\" then, \"cat\" now"),
    ] {
        let flag = change.split(' ').next().unwrap_or_default();
        let kept = command.split(" --").skip(1).filter(|part| !format!("--{part}").starts_with(&format!("{flag} ")));
        let kept: String = kept.map(|part| format!(" --{}", part.trim_end())).collect();
        let complaint = place.complaint(&format!("compare{kept} {change} --resume"));
        assert!(complaint.contains(said) && complaint.contains("mix"), "{change}: {complaint}");
    }
}

#[cfg(unix)]
#[test]
fn an_unfinished_run_of_a_comparison_ends_as_if_it_had_never_stopped() {
    let place = Place::with_model();
    let command = |out: &str| {
        format!(
            "compare --model model --data data.jsonl --out {out} --max-steps 200 --validate-every 25 --batch-size 4 \
             --validation-fraction 0.5 --objectives rpo --learning-rate 0.001"
        )
    };
    place.ok(&command("whole"));
    let arguments = command("parts");
    let mut child = place.command(env!("CARGO_BIN_EXE_rpo")).args(arguments.split(' ')).spawn().expect("runs");
    let metrics = place.path("parts/rpo-42/metrics.jsonl");
    while !std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 30) {
        assert!(child.try_wait().expect("child").is_none(), "it stopped by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success() && !child.wait().expect("child").success());
    assert!(place.path("parts/rpo-42/last").is_dir() && !place.path("parts/rpo-42/judged.json").exists());
    let said = place.ok(&format!("{arguments} --resume"));
    assert!(said.contains("going on after step"), "{said}");
    assert_eq!(figures(&place.path("parts/compare.json")), figures(&place.path("whole/compare.json")));
}

#[test]
fn objectives_are_verified() {
    let place = Place::new();
    let said = place.ok("verify --seeds 2 --steps 2 --only 1,lengths --out verified");
    for shown in ["KL(pi || pi*)", "Probability of the possible responses", "group-centred", "undefined", "kto, end"] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    assert_eq!(names(&place.path("verified")), ["report.html", "verify.json"]);
    let json = std::fs::read_to_string(place.path("verified/verify.json")).expect("written");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let outcome = &json["outcomes"][1];
    assert_eq!((&outcome["objective"], &outcome["condition"]), (&"rpo fitted".into(), &"1".into()));
    let end = &outcome["runs"][1]["ended"][2];
    assert_eq!(end["step"], 2);
    assert!(end["mass"].as_f64().is_some_and(|mass| mass > 0.0 && mass < 1.0), "{end}");
    assert!(place.complaint("verify --only 3 --out x").contains("no condition `3`; there are: 1, 2, 4"));
    assert!(place.complaint("verify --objectives ppo --out x").contains("no objective `ppo`; there are: sft best"));
    assert!(place.complaint("verify --seeds 1 --out x").contains("at least two"));
    assert!(place.complaint("verify --out verified").contains("already exists"));
}

#[test]
fn a_hub_model_is_taken_from_the_local_cache_without_network() {
    let place = Place::with_model();
    let repo = place.path("hub/hub/models--some--model");
    let snapshot = repo.join("snapshots/abc");
    std::fs::create_dir_all(repo.join("refs")).expect("create");
    std::fs::create_dir_all(&snapshot).expect("create");
    std::fs::write(repo.join("refs/main"), "abc").expect("write");
    for name in names(&place.path("model")) {
        std::fs::copy(place.path("model").join(&name), snapshot.join(&name)).expect("copy");
    }
    let cached = place.ok("generate --model some/model --max-new-tokens 5 say");
    assert_eq!(cached, place.ok("generate --model model --max-new-tokens 5 say"));
    std::fs::remove_file(snapshot.join("model.safetensors")).expect("remove");
    let said = place.complaint("generate --model some/model say");
    assert!(said.contains("HF_HUB_OFFLINE") && said.contains("model.safetensors"), "{said}");
}

#[test]
fn data_is_described() {
    let place = Place::with_model();
    let said = place.ok("inspect data data.jsonl --tokenizer model");
    assert!(said.contains("40 rated responses of 20 prompts") && said.contains("mean 0.5000"), "{said}");
    let json: serde_json::Value =
        serde_json::from_str(&place.ok("inspect data data.jsonl --tokenizer tokenizer.json --json")).expect("JSON");
    assert_eq!((&json["responses_per_prompt"]["2"], &json["tied_prompts"]), (&20.into(), &0.into()));
    assert!(place.complaint("inspect data data.jsonl --tokenizer model --format xml").contains("xml"));
}

/// A limit on the size of files stands in for a disk that fills.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_that_looks_like_a_model() {
    let place = Place::new();
    let line = format!(
        "trap '' XFSZ; ulimit -f 16; exec {} init --config config.json --tokenizer tokenizer.json --out model",
        env!("CARGO_BIN_EXE_rpo")
    );
    let output = place.command("sh").args(["-c", &line]).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("cannot write"), "{said}");
    assert_eq!(names(place.0.path()), ["config.json", "data.jsonl", "tokenizer.json"]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_before_it_stops() {
    let place = Place::with_model();
    assert_eq!(place.ended_by("-INT"), Some(130), "as shells have it for SIGINT");
    let last = place.path("run/last");
    assert!(last.join("model.safetensors").is_file() && last.join("resume/optimizer.safetensors").is_file());
    place.ok("generate --model run/last --max-new-tokens 3 say");
}

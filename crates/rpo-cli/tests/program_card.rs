//! `rpo card`: what it takes from a run and an evaluation, and what it refuses. With `RPO_PYTHON` set to a Python that has transformers and
//! huggingface_hub, the front matter is read by the latter and the code of the card is run.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Place, TRAIN};
use serde_json::{Value, json};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("text")
}

/// A place with a short run.
fn trained(more: &str) -> Place {
    let place = Place::with_model();
    place.ok(&format!("{TRAIN} --max-steps 6 --validate-every 3 --learning-rate 0.01{more}"));
    place
}

/// The fingerprint of a model, as `rpo generate` leaves it beside its answers.
fn fingerprint(place: &Place, model: &str) -> String {
    place.write("prompts.txt", "say yes\n");
    place.ok(&format!("generate --model {model} --input prompts.txt --output {model}.jsonl --max-new-tokens 2"));
    let begun: Value = serde_json::from_str(&read(&place.path(&format!("{model}.jsonl.run.json")))).expect("JSON");
    begun["model-fingerprint"].as_str().expect("a fingerprint").to_string()
}

/// An evaluation of the model with this fingerprint and of its start, as `rpo evaluate` writes one.
fn evaluation(fingerprint: &str) -> Value {
    let judged = |name: &str, rate: f64, verdict: &str| {
        let counts = json!({"judgements": 40, "unparsed_calls": 2, "answered": 39, "tied_calls": 0, "decided": 39,
            "consistent": 30, "flips": 9, "consistency": null, "chance_consistency": 0.5, "p": 0.001,
            "first": {"mean": 0.52, "low": 0.4, "high": 0.6, "n": 78}, "longer": null});
        let pair = json!({"models": [0, 1], "judgements": 39, "wins": 24, "ties": 9, "losses": 6,
            "rate": {"mean": rate, "low": rate - 0.1, "high": rate + 0.1, "n": 39}, "over_runs": null, "p": 0.001,
            "p_holm": 0.002, "p_benjamini_hochberg": 0.002, "length_controlled": null, "smallest_rate": 0.7,
            "prompts_needed": [600, 150, 70]});
        let strength = json!({"elo": {"mean": 1000.0, "low": 900.0, "high": null}, "group": 0, "judgements": 39});
        json!({"name": name, "kind": "endpoint", "template": "short", "diagnostics": counts, "verdict": verdict,
            "pairs": [pair], "strengths": {"models": [strength, strength], "groups": 1, "finite": true,
            "resamples_with_ties": 0.0}})
    };
    let about = json!({"name": "rougeL", "version": "rouge-score 0.1.2", "tokenization": "words", "unit": "F1, 0 to 100",
        "higher_is_better": true});
    json!({
        "models": [{"name": "rpo", "path": "run/best", "fingerprint": fingerprint}, {"name": "start: the \"first\""}],
        "prompts": {"source": "/home/me/held-out.jsonl", "number": 40, "later": 1},
        "decoding": {"temperature": 0.7},
        "metrics": [{"about": about, "models": [{"mean": 31.25, "low": 30.0, "high": 32.5, "n": 40}, null]}],
        "judges": [judged("mistral", 0.73, "sound"), judged("smollm2", 0.5, "position-only")],
        "provenance": {"version": "0.1.0", "date": "2026-11-26", "command": "rpo evaluate"},
        "of a later version": true,
    })
}

#[test]
fn a_card_says_what_the_run_says_and_leaves_what_people_wrote() {
    let place = trained("");
    let said = place.run("card run/best --license apache-2.0 --language en --dataset openbmb/UltraFeedback");
    assert!(said.status.success());
    let notes = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        notes.contains("--base-model") && notes.contains("--evaluation") && !notes.contains("--license"),
        "{notes}"
    );
    let card = read(&place.path("run/best/README.md"));
    for part in [
        "license: apache-2.0",
        "- openbmb/UltraFeedback",
        "- reward-partitioning-optimization",
        "library_name: transformers",
        "Nothing was measured of this model.",
        "| held-out loss before |",
        "| held-out loss after ",
        "AutoModelForSeq2SeqLM",
        "max-steps = 6",
    ] {
        assert!(card.contains(part), "no {part} in\n{card}");
    }
    // Nothing of this machine.
    assert!(!card.contains(&*place.path("").to_string_lossy()) && !card.contains("cache ="), "{card}");
    // Its own card it replaces; one that somebody changed it leaves, unless told otherwise.
    place.ok("card run/best --repo user/first");
    assert!(read(&place.path("run/best/README.md")).contains("name = \"user/first\""));
    place.write("run/best/README.md", &read(&place.path("run/best/README.md")).replace("Limits", "My limits"));
    assert!(place.complaint("card run/best").contains("was changed since"));
    place.write("run/best/README.md", "# Mine\n");
    let complaint = place.complaint("card run/best");
    assert!(complaint.contains("was not written by `rpo card`") && complaint.contains("--force"), "{complaint}");
    assert_eq!(read(&place.path("run/best/README.md")), "# Mine\n");
    place.ok("card run/best --force --name First");
    assert!(read(&place.path("run/best/README.md")).contains("# First"));
    assert!(place.complaint("card run --license mit").contains("run/best"));
    assert!(place.complaint("card run/best --license my\u{a0}own").contains("license"));
    assert!(place.complaint("card run/best --repo first").contains("user/flan-t5-small-rpo"));
}

#[test]
fn figures_are_of_this_model_or_refused() {
    let place = trained("");
    let of_best = fingerprint(&place, "run/best");
    place.write("evaluation.json", &evaluation(&of_best).to_string());
    let (other, complaint) = (fingerprint(&place, "model"), place.complaint("card model --evaluation evaluation.json"));
    assert!(complaint.contains("rpo (fingerprint ") && complaint.contains(&other[..12]), "{complaint}");
    assert!(complaint.contains("no figures of another model"), "{complaint}");
    assert!(!place.path("model/README.md").exists());
    place.write("model/README.md", "---\nlicense: mit\n---\n# Start\n");
    place.ok("card run/best --evaluation evaluation.json --base-model google/flan-t5-small");
    let card = read(&place.path("run/best/README.md"));
    let row = |judge: &str| card.lines().find(|line| line.starts_with(&format!("| {judge} |"))).expect("a row");
    assert!(row("mistral").contains("| 73.0 % [63.0, 83.0] |") && !row("mistral").contains("~~"), "{card}");
    assert!(row("smollm2").contains("~~50.0 % [40.0, 60.0]~~"), "{card}");
    assert!(card.contains("31.25 [30.00, 32.50] | not measured | 40 | rouge-score 0.1.2"), "{card}");
    // The licence is what the card of the base model says; a path says no more than a file's name.
    assert!(card.contains("license: mit") && card.contains("`held-out.jsonl`") && !card.contains("/home/me"), "{card}");
    let front = card.split("---\n").nth(1).expect("front matter");
    assert!(front.contains("value: 73.0") && front.contains("value: 31.25") && !front.contains("smollm2"), "{front}");
    assert!(front.contains("base_model: google/flan-t5-small"), "{front}");
    place.write("evaluation.json", "{}");
    assert!(place.complaint("card run/best --evaluation evaluation.json").contains("not an evaluation"));
}

const CHECK: &str = r#"
import re, sys, os, json
from pathlib import Path
from huggingface_hub import ModelCard
import yaml
text = Path("README.md").read_text()
front = yaml.safe_load(text.split("---\n")[1])
card = ModelCard.load("README.md")
assert card.data.to_dict()["library_name"] == front["library_name"], front
results = {r.metric_name: r.metric_value for r in card.data.eval_results or []}
os.environ["HF_HUB_OFFLINE"] = "1"
code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
exec(compile(code, "README.md", "exec"))
print(json.dumps({"front": front, "results": results, "class": type(model).__name__}))
"#;

#[test]
fn the_front_matter_is_valid_and_the_code_runs() {
    let Some(python) = std::env::var_os("RPO_PYTHON") else {
        eprintln!("skipped: RPO_PYTHON names no Python with transformers and huggingface_hub");
        return;
    };
    let check = |place: &Place, dir: &str| -> Value {
        let mut command = Command::new(&python);
        let output = command.current_dir(place.path(dir)).args(["-c", CHECK]).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(said.lines().last().expect("a line")).expect("JSON")
    };
    let place = trained("");
    place.write("evaluation.json", &evaluation(&fingerprint(&place, "run/best")).to_string());
    place.ok("card run/best --evaluation evaluation.json --license apache-2.0 --language no --base-model google/flan-t5-small");
    let found = check(&place, "run/best");
    assert_eq!((&found["front"]["language"], &found["class"]), (&json!(["no"]), &json!("T5ForConditionalGeneration")));
    let results = found["results"].as_object().expect("results");
    assert_eq!(results["rougeL (rouge-score 0.1.2)"], json!(31.25));
    assert_eq!(results["win rate against start: the \"first\", judged by mistral (%)"], json!(73.0));
    let adapters = trained(" --lora-rank 2");
    adapters.ok("card run/last --license mit");
    assert_eq!(check(&adapters, "run/last")["front"]["library_name"], json!("peft"));
}

//! A place in which the program is run as a person uses it, on a tiny model that the tests write themselves.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const CONFIG: &str = r#"{"model_type":"t5","vocab_size":64,"d_model":32,"d_kv":8,"d_ff":64,"num_layers":2,"num_heads":4,
    "feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#;

/// A directory with `config.json`, `tokenizer.json` and `data.jsonl`, in which the program is run.
pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("temporary directory"));
        let words = ["<pad>", "</s>", "<unk>", "say", "yes", "no", "please", "thanks"];
        let vocab: serde_json::Map<_, _> =
            words.iter().enumerate().map(|(i, w)| ((*w).to_string(), i.into())).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
        });
        place.write("config.json", CONFIG);
        place.write("tokenizer.json", &tokenizer.to_string());
        let row = |i: usize| {
            let prompt = words[3..].iter().cycle().skip(i).take(1 + i / 5).copied().collect::<Vec<_>>().join(" ");
            serde_json::json!({"prompt": prompt, "responses": [{"text": "yes please", "reward": 1}, {"text": "no", "reward": 0}]})
        };
        place.write("data.jsonl", &(0..20).map(|i| format!("{}\n", row(i))).collect::<String>());
        place
    }

    pub fn with_model() -> Self {
        let place = Self::new();
        place.ok("init --config config.json --tokenizer tokenizer.json --out model");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().expect("parent")).expect("create");
        std::fs::write(self.path(name), text).expect("write");
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env("XDG_CACHE_HOME", self.path("cache")).env("HF_HUB_OFFLINE", "1");
        command.env("HF_HOME", self.path("hub"));
        command
    }

    pub fn run(&self, arguments: &str) -> Output {
        // A no-break space stands for one inside an argument.
        let arguments = arguments.split(' ').map(|a| a.replace('\u{a0}', " "));
        self.command(env!("CARGO_BIN_EXE_rpo")).args(arguments).output().expect("runs")
    }

    pub fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// With which status a training run ends that gets `signal` after a few steps.
    #[cfg(unix)]
    pub fn ended_by(&self, signal: &str) -> Option<i32> {
        let arguments = format!("{TRAIN} --max-steps 100000 --batch-size 8 --validate-every 100000");
        let mut child = self.command(env!("CARGO_BIN_EXE_rpo")).args(arguments.split(' ')).spawn().expect("runs");
        let metrics = self.path("run/metrics.jsonl");
        while !std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 3) {
            assert!(child.try_wait().expect("child").is_none(), "it stopped by itself");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
        assert!(killed.success());
        child.wait().expect("child").code()
    }

    /// What is said when `arguments` must fail.
    pub fn complaint(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("directory");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub const TRAIN: &str = "train rpo --model model --data data.jsonl --out run";

//! `rpo push`: a model's directory to a hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use indicatif::{HumanBytes, ProgressBar};
use rpo::model::checkpoint::Checkpoint;
use rpo::store::push::{Event, File, Hub, Listing, Pushed, Target, check_repo, list, push};

use crate::progress;

/// Send a model's directory to the Hugging Face hub: `rpo push runs/first/best user/flan-t5-small-rpo --private`
///
/// The repository is made if it is missing. What the hub has already is not sent again, so that the same command goes on after
/// an interruption. The token comes from HF_TOKEN or from a login (`hf auth login`), the hub from HF_ENDPOINT. Hidden files,
/// half-written ones and the state from which a run resumes stay here.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo push runs/first/best user/flan-t5-small-rpo --dry-run
  HF_TOKEN=hf_... rpo push runs/first/best user/flan-t5-small-rpo --private")]
pub struct Arguments {
    /// Directory of the model
    dir: PathBuf,
    /// Repository on the hub
    #[arg(value_name = "OWNER/NAME")]
    repo: String,
    /// Make the repository private, if it is made
    #[arg(long)]
    private: bool,
    /// Branch, made if it is missing
    #[arg(long, default_value = "main", value_name = "BRANCH")]
    revision: String,
    /// What the commit says
    #[arg(long, short, default_value = "Upload model", value_name = "TEXT")]
    message: String,
    /// Names that stay here, as a pattern such as 'adapter/*'; may be repeated
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Say what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { dir, repo, private, revision, message, exclude, dry_run } = arguments;
    check_repo(repo)?;
    if revision.is_empty() || message.trim().is_empty() {
        bail!("neither --revision nor --message may be empty");
    }
    if !Checkpoint::is_at(dir) {
        // Says what it is instead.
        Checkpoint::open(dir)?;
    }
    let Listing { files, left_out } = list(dir, exclude)?;
    if files.is_empty() {
        bail!("{}: there is nothing to send", dir.display());
    }
    remarks(dir, repo, &files).iter().for_each(|remark| tracing::warn!("{remark}"));
    let total = HumanBytes(files.iter().map(|file| file.size).sum());
    if *dry_run {
        files.iter().for_each(|file| println!("{:>12}  {}", HumanBytes(file.size).to_string(), file.name));
        left_out.iter().for_each(|name| println!("{:>12}  {name}", "stays here"));
        println!("{} files, {total}, would go to {repo}, branch {revision}; nothing was sent", files.len());
        return Ok(());
    }
    let target = Target { repo: repo.clone(), revision: revision.clone(), private: *private, message: message.clone() };
    let hub = Hub::of_environment()?;
    let mut shown = Shown { bar: ProgressBar::hidden(), private: *private, page: hub.page(repo) };
    let pushed = push(&hub, &target, &files, &mut |event| shown.hear(event));
    shown.bar.finish_and_clear();
    report(&pushed?);
    Ok(())
}

/// What people see meanwhile.
struct Shown {
    bar: ProgressBar,
    private: bool,
    page: String,
}

impl Shown {
    fn hear(&mut self, event: Event) {
        match event {
            Event::Repository { made: true } => eprintln!("made {}", self.page),
            Event::Repository { made: false } => {
                eprintln!("{} exists", self.page);
                if self.private {
                    tracing::warn!("--private is for a repository that is made; this one stays as it is");
                }
            }
            Event::Reading(bytes) => self.bar = progress::bytes("reading", bytes),
            Event::Sending { bytes, .. } => {
                self.bar.finish_and_clear();
                self.bar = progress::bytes("sending", bytes);
            }
            Event::Read(bytes) | Event::Sent(bytes) => self.bar.inc(bytes),
            Event::Unsent(bytes) => self.bar.dec(bytes),
        }
    }
}

fn report(pushed: &Pushed) {
    let Pushed { url, sent, present, small, ignored } = pushed;
    let said = match present {
        0 => String::new(),
        n => format!(", {n} were there already"),
    };
    println!("{url}: {sent} large files sent{said}, {small} small ones in the commit");
    if !ignored.is_empty() {
        println!("not wanted there, as its .gitignore says: {}", ignored.join(", "));
    }
}

/// What a person who will load it from there would miss.
fn remarks(dir: &Path, repo: &str, files: &[File]) -> Vec<String> {
    let mut remarks = Vec::new();
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    match text("README.md") {
        None => remarks.push(format!("there is no README.md: rpo card {} --repo {repo} writes one", dir.display())),
        Some(card) if card.contains("name = \".\"  # this directory") => {
            remarks.push(format!(
                "the code in README.md loads `.`: rpo card {} --repo {repo} names the model",
                dir.display()
            ));
        }
        Some(_) => {}
    }
    for file in files.iter().filter(|file| file.name.ends_with("adapter_config.json")) {
        let config = std::fs::read_to_string(&file.path).ok();
        let config: Option<serde_json::Value> = config.and_then(|text| serde_json::from_str(&text).ok());
        let base = config.as_ref().and_then(|config| config["base_model_name_or_path"].as_str());
        if let Some(base) = base.filter(|base| Path::new(base).is_absolute()) {
            let name = &file.name;
            remarks.push(format!(
                "{name} names its base model by a path of this machine, {base}: write its id on the hub there"
            ));
        }
    }
    remarks
}

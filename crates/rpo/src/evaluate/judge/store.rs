//! Replies of judges as they are kept: JSON Lines, added one by one, so that whatever ends a run, no question is asked twice.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Judge, Question, Reply, Template, Usage};
use crate::error::{Error, Result};

/// Names a question to a judge: a hash of the judge's name and of everything that it is sent.
pub type Key = [u8; 32];

/// Where the line of a reply begins, and how long it is.
type Places = HashMap<Key, (u64, usize)>;

/// A line: what was asked and what came back, or why nothing did.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    key: String,
    /// Hash of the question in the words of the template, whoever is asked.
    pub question: String,
    pub judge: String,
    template: String,
    /// When the reply came.
    time: String,
    request: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    without: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<String>,
    /// What it says, where that is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    /// Probability of the first response, by the log-probabilities of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl Line {
    /// What the judge said, if it replied.
    pub fn said(self) -> Option<String> {
        self.text.or(self.reply)
    }
}

/// A file of replies.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    file: File,
    places: Places,
    /// Bytes of whole lines.
    whole: u64,
    /// Bytes of a torn line that were dropped.
    torn: u64,
    /// What another process has, as it was when this was opened.
    others: Option<(File, Places)>,
}

impl Store {
    /// Opens a file, or makes it. The torn end that a killed program left is dropped.
    ///
    /// # Errors
    /// If it cannot be written, another program is writing it, or a line is none of a store's (which).
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::write(path, e);
        let mut file = File::options().read(true).append(true).create(true).open(path).map_err(failed)?;
        lock(&file, path)?;
        let length = file.metadata().map_err(failed)?.len();
        let (places, whole) = scan(&file, path)?;
        if whole < length {
            file.set_len(whole).map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let kept = Kept { file, places, whole, torn: length - whole, others: None };
        Ok(Self { path: path.into(), kept: Mutex::new(kept) })
    }

    /// Opens the store `part` of one of several processes, which knows what is in the store `whole` of another.
    ///
    /// # Errors
    /// As [`Self::open`], and if `whole` cannot be read.
    pub fn open_part(part: &Path, whole: &Path) -> Result<Self> {
        let file = File::open(whole).map_err(|e| Error::read(whole, e))?;
        let (places, _) = scan(&file, whole)?;
        let store = Self::open(part)?;
        store.kept().others = Some((file, places));
        Ok(store)
    }

    /// Takes in the replies of the store `part`, and gives how many were not known.
    ///
    /// # Errors
    /// If one of the two cannot be read, another program is writing `part`, or this one cannot be written.
    pub fn take(&self, part: &Path) -> Result<usize> {
        let mut file = File::open(part).map_err(|e| Error::read(part, e))?;
        lock(&file, part)?;
        let mut found: Vec<(Key, (u64, usize))> = scan(&file, part)?.0.into_iter().collect();
        found.sort_unstable_by_key(|(_, (start, _))| *start);
        found.retain(|(key, _)| !self.kept().places.contains_key(key));
        for (key, place) in &found {
            let line = read_line(&mut file, *place).map_err(|e| Error::read(part, e))?;
            self.append(&line, Some(*key))?;
        }
        self.sync()?;
        Ok(found.len())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many replies it holds.
    pub fn replies(&self) -> usize {
        self.kept().places.len()
    }

    /// How many bytes of a torn line were dropped when it was opened.
    pub fn torn(&self) -> u64 {
        self.kept().torn
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `key` was answered: what the judge said, and the probability of the first response, where known.
    pub(super) fn find(&self, key: &Key) -> Result<Option<(String, Option<f64>)>> {
        let failed = |e| Error::read(&self.path, e);
        let mut kept = self.kept();
        let own = kept.places.get(key).copied();
        let (file, place) = match (own, &mut kept.others) {
            (Some(place), _) => (&mut kept.file, place),
            (None, Some((file, places))) => match places.get(key) {
                Some(place) => (file, *place),
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let line = read_line(file, place).map_err(failed)?;
        drop(kept);
        let line: Line = serde_json::from_slice(&line)
            .map_err(|e| Error::file(&self.path, format!("byte {}: the line was changed: {e}", place.0)))?;
        let preference = line.preference;
        Ok(line.said().map(|said| (said, preference)))
    }

    /// Keeps a reply.
    pub(super) fn add(&self, asked: &Asking<'_>, reply: &Reply, preference: Option<f64>) -> Result<()> {
        let text = (reply.text != reply.raw).then(|| reply.text.clone());
        let without = reply.without.iter().map(|name| (*name).to_string()).collect();
        let replied =
            Line { without, reply: Some(reply.raw.clone()), text, usage: reply.usage, preference, ..asked.line() };
        self.write(&replied, Some(asked.key))
    }

    /// Notes that a question has no reply, which is no answer: it is asked again another time.
    pub(super) fn fail(&self, asked: &Asking<'_>, problem: &str) -> Result<()> {
        self.write(&Line { failed: Some(problem.into()), ..asked.line() }, None)
    }

    fn write(&self, line: &Line, key: Option<Key>) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|e| Error::file(&self.path, e.to_string()))? + "\n";
        self.append(text.as_bytes(), key)
    }

    fn append(&self, line: &[u8], key: Option<Key>) -> Result<()> {
        let mut kept = self.kept();
        if let Err(problem) = kept.file.write_all(line) {
            // What was written of it goes; where not even that can be done, it is dropped when the file is opened again.
            let _ = kept.file.set_len(kept.whole);
            return Err(Error::write(&self.path, problem));
        }
        let start = kept.whole;
        kept.whole += line.len() as u64;
        key.into_iter().for_each(|key| _ = kept.places.insert(key, (start, line.len())));
        Ok(())
    }

    /// Sees to it that the disk has all.
    pub(super) fn sync(&self) -> Result<()> {
        self.kept().file.sync_all().map_err(|e| Error::write(&self.path, e))
    }
}

/// A question under the name by which it is kept.
pub(super) struct Asking<'a> {
    pub key: Key,
    pub judge: &'a str,
    pub template: &'a str,
    pub question: &'a Question,
    pub request: Value,
}

impl<'a> Asking<'a> {
    /// Names a question to a judge.
    pub fn new(judge: &'a dyn Judge, template: &'a Template, question: &'a Question) -> Self {
        let request = judge.request(question, template);
        let name = judge.name();
        let key = blake3::hash(serde_json::json!([name, request]).to_string().as_bytes()).into();
        Self { key, judge: name, template: &template.name, question, request }
    }

    /// In which of so many parts the question is, counted from 0.
    pub fn part(&self, of: usize) -> usize {
        let [a, b, c, d, ..] = self.key;
        u32::from_le_bytes([a, b, c, d]) as usize % of
    }

    fn line(&self) -> Line {
        Line {
            key: blake3::Hash::from(self.key).to_hex().to_string(),
            question: question_hash(self.question.system.as_deref(), &self.question.user),
            judge: self.judge.into(),
            template: self.template.into(),
            time: Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            request: self.request.clone(),
            without: Vec::new(),
            reply: None,
            text: None,
            usage: None,
            preference: None,
            failed: None,
        }
    }
}

/// A hash of a question in the words of a template, whoever is asked.
pub(super) fn question_hash(system: Option<&str>, user: &str) -> String {
    blake3::hash(serde_json::json!([system, user]).to_string().as_bytes()).to_hex()[..32].into()
}

/// Keeps other programs from writing the file.
fn lock(file: &File, path: &Path) -> Result<()> {
    // Where files cannot be locked, as on some network drives, people have to see to it.
    let is_taken = || matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    // A program that is being started by this one shares its files for a moment.
    let frees = || {
        (0..20).any(|_| {
            !is_taken() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        })
    };
    if frees() { Ok(()) } else { Err(Error::file(path, "another program is writing it")) }
}

fn read_line(file: &mut File, (start, length): (u64, usize)) -> std::io::Result<Vec<u8>> {
    let mut line = vec![0; length];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut line)?;
    Ok(line)
}

/// Where replies are, and how many bytes the whole lines have.
fn scan(file: &File, path: &Path) -> Result<(Places, u64)> {
    #[derive(Deserialize)]
    struct Found {
        key: String,
        #[serde(rename = "judge")]
        _judge: String,
        reply: Option<serde::de::IgnoredAny>,
    }
    let (mut places, mut whole) = (Places::new(), 0);
    let (mut reader, mut line, mut number) = (BufReader::new(file), Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let length = reader.read_until(b'\n', &mut line).map_err(|e| Error::read(path, e))?;
        let refuse = |what: &str| {
            let problem = format!("line {number} is {what}; name a file that holds replies of judges and nothing else");
            Err(Error::file(path, problem))
        };
        if !line.ends_with(b"\n") {
            // A file of something else is not to lose its end.
            return match length == 0 || line.starts_with(&b"{\"key\":\""[..length.min(8)]) {
                true => Ok((places, whole)),
                false => refuse("not one of a store"),
            };
        }
        let Ok(found) = serde_json::from_slice::<Found>(&line) else { return refuse("not one of a store") };
        let Ok(key) = blake3::Hash::from_hex(found.key.as_bytes()) else { return refuse("without a key") };
        if found.reply.is_some() {
            places.insert(*key.as_bytes(), (whole, length));
        }
        whole += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::judge::program::Allowed;
    use crate::evaluate::judge::{Case, Program};

    /// A judge, how it is asked, and three questions.
    fn to_ask() -> (Program, Template, [Question; 3]) {
        let judge = Program::new("x", None, Allowed { time: Duration::MAX, output: 1 });
        let template = Template::named("rating").expect("built in");
        let questions = ["a", "b", "c"].map(|text| {
            let case = Case::Single { prompt: text.into(), response: "yes".into() };
            template.fill(case).expect("a question")
        });
        (judge, template, questions)
    }

    #[test]
    fn whole_lines_stay_and_a_torn_one_goes() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("replies.jsonl");
        let (judge, template, questions) = to_ask();
        let asking = |i: usize| Asking::new(&judge, &template, &questions[i]);
        let reply = |text: &str| Reply { raw: format!("<{text}>"), text: text.into(), ..Reply::default() };
        let store = Store::open(&path).expect("new");
        store.add(&asking(0), &reply("7"), None).expect("kept");
        store.fail(&asking(1), "HTTP 500").expect("noted");
        assert!(Store::open(&path).expect_err("in use").to_string().contains("another program"));
        assert_eq!(store.find(&asking(0).key).expect("read"), Some(("7".into(), None)));
        store.add(&asking(2), &reply("8"), Some(0.25)).expect("kept behind a look");
        store.sync().expect("on disk");
        drop(store);
        let whole = std::fs::read_to_string(&path).expect("lines");
        assert_eq!(whole.lines().count(), 3);
        let last = whole.trim_end().rfind('\n').expect("lines") + 1;
        for end in last + 1..whole.len() {
            std::fs::write(&path, &whole[..end]).expect("torn");
            let store = Store::open(&path).expect("opened");
            assert_eq!((store.replies(), store.torn()), (1, (end - last) as u64));
            assert_eq!(store.find(&asking(2).key).expect("read"), None);
        }
        let store = Store::open(&path).expect("opened");
        assert_eq!(store.find(&asking(1).key).expect("read"), None, "a failure is no answer");
        store.add(&asking(2), &reply("8"), Some(0.25)).expect("kept");
        assert_eq!(store.find(&asking(2).key).expect("read"), Some(("8".into(), Some(0.25))));
    }

    #[test]
    fn the_store_of_a_part_knows_the_whole_which_takes_it_in() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let [whole, part] = ["whole.jsonl", "part.jsonl"].map(|name| dir.path().join(name));
        let (judge, template, questions) = to_ask();
        let asking = |i: usize| Asking::new(&judge, &template, &questions[i]);
        let reply = |text: &str| Reply { raw: text.into(), text: text.into(), ..Reply::default() };
        let first = Store::open(&whole).expect("new");
        first.add(&asking(0), &reply("1"), None).expect("kept");
        let other = Store::open_part(&part, &whole).expect("new");
        assert_eq!(other.find(&asking(0).key).expect("read"), Some(("1".into(), None)));
        other.add(&asking(1), &reply("2"), None).expect("kept");
        other.fail(&asking(2), "HTTP 500").expect("noted");
        assert!(first.take(&part).expect_err("in use").to_string().contains("another program"));
        drop(other);
        // Once, however often.
        assert_eq!([1, 0].map(|_| first.take(&part).expect("taken")), [1, 0]);
        assert_eq!(first.find(&asking(1).key).expect("read"), Some(("2".into(), None)));
        drop(first);
        let again = Store::open(&whole).expect("whole");
        assert_eq!((again.replies(), again.torn()), (2, 0));
        assert_eq!(again.find(&asking(2).key).expect("read"), None);
        let parts: Vec<usize> = (0..3).map(|i| asking(i).part(7)).collect();
        assert!(parts.iter().all(|part| *part < 7) && asking(0).part(1) == 0);
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_keeps_its_end() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("notes.txt");
        for (text, line) in [("my notes", 1), ("{\"key\":\"x\",\"judge\":\"y\"}\n", 1), ("{\"prompt\":\"a\"}\n{", 1)] {
            std::fs::write(&path, text).expect("written");
            let said = Store::open(&path).expect_err("no store").to_string();
            assert!(said.contains(&format!("notes.txt: line {line} is")), "{said}");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
        }
    }
}

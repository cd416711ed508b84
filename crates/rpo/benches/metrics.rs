//! Metrics of 10,000 responses, each beside a reference, and the references of the metrics in Python in turn.
//!
//! ```text
//! cargo bench --workspace --bench metrics -- [--pairs 10000] [--rounds 3] [--metrics bleu,chrf] [--wordnet DIR]
//!     [--abusive-words FILE] [--peer "VENV/bin/python scripts/metric_peers.py --wordnet DIR --abusive-words FILE"]... [--json FILE]
//! cargo bench --workspace --bench metrics -- --check VALUES.json [--wordnet DIR] [--abusive-words FILE]
//! ```
//!
//! The pairs are made of common words; they hold 20 to 80 of them with marks and lines, and two words of five differ. `--check`
//! compares with the values that `scripts/metric_goldens.py --compare` wrote and says the largest difference of each metric.

mod common;

use std::path::Path;
use std::time::Instant;

use common::{Peer, least, option, options};
use rpo::evaluate::metric::{Case, Files, text};
use serde_json::{Value, json};

const METRICS: &str = "bleu,bleu-intl,bleu-zh,bleu-char,bleu-none,chrf,chrf++,rouge-1,rouge-2,rouge-l,rouge-lsum,rouge-l-stemmed,\
    meteor,meteor-no-synonyms,distinct-1,distinct-2,self-repetition-4,length-words,abusive-words";

const WORDS: &str = "the of and to in a is that for it was on are as with they be at one have this from by hot but some what there \
    we can out other were all your when up use word how said an each she which do their time if will way about many then them would \
    write like so these her long make thing see him two has look more day could go come did my sound no most number who over know \
    water than call first people may down side been now find head stand own page should country found answer school grow study \
    still learn plant cover food sun four thought let keep eye never last door between city tree cross since hard start might story \
    saw far sea draw left late run don't while press close night real life few stop open seem together next white children begin \
    got walk example ease paper often always music those both mark book letter until mile river car feet care second group carry \
    took rain eat room friend began idea fish mountain north once base hear horse cut sure watch colour face wood main enough plain \
    girl usual young ready above ever red list though feel talk bird soon body dog family direct pose leave song measure state \
    product black short numeral class wind question happen complete ship area half rock order fire south problem piece told knew \
    pass farm top whole king size heard best hour better true during hundred remember step early hold west ground interest reach \
    fast five sing listen six table travel less morning ten simple several vowel toward war lay against pattern slow centre love \
    person money serve appear road map science rule govern pull cold notice voice fall power town fine certain fly unit lead cry \
    dark machine note wait plan figure star box noun field rest correct able pound done beauty drive stood contain front teach \
    week final gave green quick develop sleep warm free minute strong special mind behind clear tail produce fact street inch lot \
    nothing course stay wheel full force blue object decide surface deep moon island foot yet busy test record boat common gold";

fn main() {
    common::begin();
    let files = Files {
        wordnet: option("--wordnet").map(Into::into),
        abusive_words: option("--abusive-words").map(Into::into),
        tokenizer: None,
    };
    if let Some(path) = option("--check") {
        return check(Path::new(&path), &files);
    }
    let pairs = option("--pairs").map_or(10_000, |n| n.parse().expect("a number"));
    let rounds = option("--rounds").map_or(3, |n| n.parse().expect("a number"));
    let cases = pairs_of_words(pairs);
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("pairs.jsonl");
    let line = |case: &Case| format!("{}\n", json!({"response": case.response, "reference": case.references[0]}));
    std::fs::write(&file, cases.iter().map(line).collect::<String>()).expect("written");
    let mut peers: Vec<Peer> = options("--peer").iter().map(|command| Peer::start(command)).collect();
    for peer in &mut peers {
        peer.ask(&format!("read {}", file.display()));
    }
    println!("{}; {pairs} pairs, the fastest of {rounds} rounds, seconds", common::machine());
    let mut table = serde_json::Map::new();
    for name in option("--metrics").unwrap_or(METRICS.into()).split(',') {
        let begin = Instant::now();
        let metric = text(name, &files).unwrap_or_else(|e| panic!("{e}"));
        let loading = begin.elapsed().as_secs_f64();
        let mut seen = vec![Vec::new(); 1 + peers.len()];
        for _ in 0..rounds {
            let begin = Instant::now();
            assert!(metric.measure(&cases).expect("measured").of(0..cases.len()).is_some());
            seen[0].push(begin.elapsed().as_secs_f64());
            for (peer, seen) in peers.iter_mut().zip(&mut seen[1..]) {
                seen.push(peer.ask(name).expect("it goes on").0);
            }
        }
        let seconds: Vec<f64> = seen.iter().map(|seen| least(seen)).collect();
        let others = peers.iter().zip(&seconds[1..]);
        let others = others.map(|(peer, theirs)| format!("  {} {theirs:.3} ({:.0} x)", peer.name, theirs / seconds[0]));
        println!("{name:>20} {:.4} (loaded in {loading:.3}){}", seconds[0], others.collect::<String>());
        table.insert(name.into(), json!({"loading": loading, "rounds": seen}));
    }
    peers.into_iter().for_each(|peer| {
        peer.finish();
    });
    common::write_json(table.into());
}

/// Responses with a reference each, the same every time.
fn pairs_of_words(pairs: usize) -> Vec<Case> {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut state = 1u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut case = || {
        let (mut response, mut reference) = (String::new(), String::new());
        for _ in 0..20 + below(61) {
            let word = words[below(words.len())];
            let ending = [" ", " ", " ", " ", " ", "s ", "ing ", ", ", ". ", ".\n"][below(10)];
            response += word;
            response += ending;
            reference += if below(5) < 2 { words[below(words.len())] } else { word };
            reference += ending;
        }
        Case { prompt: String::new(), response, references: vec![reference] }
    };
    (0..pairs).map(|_| case()).collect()
}

/// The largest difference from the values in a file, relative to the larger value.
fn check(path: &Path, files: &Files) {
    let golden: Value = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
    let text_of = |value: &Value| value.as_str().expect("a text").to_owned();
    let case = |case: &Value| Case {
        prompt: String::new(),
        response: text_of(&case["response"]),
        references: case["references"].as_array().expect("list").iter().map(text_of).collect(),
    };
    let cases: Vec<Case> = golden["cases"].as_array().expect("list").iter().map(case).collect();
    println!("{}: {} cases", path.display(), cases.len());
    for (name, wanted) in golden["metrics"].as_object().expect("metrics") {
        let found =
            text(name, files).and_then(|metric| metric.measure(&cases)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let each = wanted["each"].as_array().into_iter().flatten().zip(found.each());
        let pairs = each.chain([(&wanted["all"], found.of(0..cases.len()))]);
        let difference = |(wanted, found): (&Value, Option<f64>)| match (wanted.as_f64(), found) {
            (Some(a), Some(b)) if a == b => 0.0,
            (Some(a), Some(b)) => (a - b).abs() / a.abs().max(b.abs()),
            (a, b) => {
                if a == b {
                    0.0
                } else {
                    f64::INFINITY
                }
            }
        };
        println!("{name:>22} {:.1e}", pairs.map(difference).fold(0.0, f64::max));
    }
}

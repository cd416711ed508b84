//! How a report looks and what it does in a browser. With `RPO_PICTURES=DIR` the pages and pictures of them are kept there.

#![cfg(unix)]

mod example;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::Page;
use example::{Texts, page, texts};

#[path = "../../../tests/common/browser.rs"]
mod browser;

use browser::{Browser, SCREENS, Screen};

/// A place for a page, and pictures of it if they are wanted.
struct Kept {
    dir: PathBuf,
    wanted: bool,
    _temporary: Option<tempfile::TempDir>,
}

impl Kept {
    fn new() -> Self {
        match std::env::var_os("RPO_PICTURES") {
            Some(dir) => {
                std::fs::create_dir_all(&dir).expect("create");
                let dir = Path::new(&dir).canonicalize().expect("a path");
                Self { dir, wanted: true, _temporary: None }
            }
            None => {
                let temporary = tempfile::tempdir().expect("temporary directory");
                Self { dir: temporary.path().into(), wanted: false, _temporary: Some(temporary) }
            }
        }
    }

    fn page(&self, name: &str, page: &Page) -> PathBuf {
        let path = self.dir.join(name);
        page.write(&path).expect("written");
        path
    }

    fn picture(&self, browser: &mut Browser, name: &str, within: &str) {
        if self.wanted {
            browser.picture(&self.dir.join(name), within);
        }
    }
}

const CARDS: &str = "[...document.querySelectorAll('.card')]";

/// Sets a control that has this label and tells the page.
fn set(browser: &mut Browser, label: &str, value: &str) {
    browser.eval(&format!(
        "(() => {{ const control = [...document.querySelectorAll('.controls label')].find((l) => l.innerText.trim() === {label:?} || \
         l.querySelector('span').textContent === {label:?}).querySelector('input, select');
         if (control.type === 'checkbox') {{ if (control.checked !== ({value:?} === 'on')) control.click(); return; }}
         control.value = control.options ? [...control.options].find((o) => o.textContent === {value:?} && !o.disabled).value : {value:?};
         control.dispatchEvent(new Event(control.options ? 'change' : 'input', {{ bubbles: true }})); }})()"
    ));
}

fn count(browser: &mut Browser) -> String {
    browser.text("document.querySelector('.controls output').textContent")
}

/// The numbers of the prompts that are shown.
fn numbers(browser: &mut Browser) -> Vec<usize> {
    let ids = browser.text(&format!("{CARDS}.map((card) => card.id.slice(1)).join()"));
    ids.split(',').map(|id| id.parse().expect("a number")).collect()
}

#[test]
fn pages_fit_their_window_and_are_read_in_light_and_dark() {
    let Some(mut browser) = Browser::start() else { return };
    let kept = Kept::new();
    for models in [2, 6] {
        let texts = texts(30, models, 3 - models / 3);
        let path = kept.page(&format!("report-{models}.html"), &page(&texts));
        for screen in SCREENS {
            browser.open(&path, "", screen);
            browser.wait(READY);
            if models == 6 {
                set(&mut browser, "compare", "sft");
                set(&mut browser, "with", "rpo");
            }
            set(&mut browser, "mark the differences", "on");
            assert_eq!(browser.overflow(), (0.0, String::new()), "{models} {screen:?}");
            assert_eq!(browser.faint(), [] as [String; 0], "{models} {screen:?}");
            assert_eq!(browser.problems(), [] as [String; 0], "{models} {screen:?}");
            // Whoever comes by keyboard sees where he is.
            browser.eval("document.querySelector('.controls [type=search]').focus()");
            for _ in 0..3 {
                browser.press("Tab");
                let outline = browser.text(
                    "(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle + ' ' + parseFloat(s.outlineWidth) })()",
                );
                assert_eq!(outline, "solid 2", "{models} {screen:?}");
            }
            let Screen { width, dark } = screen;
            let name = format!("report-{models}-{width}-{}.png", if dark { "dark" } else { "light" });
            kept.picture(&mut browser, &name, "main");
        }
        // What is struck out looks so, in the table and in the figure, and is heard.
        let struck = browser
            .text("[...document.querySelectorAll('td s')].map((s) => getComputedStyle(s).textDecorationLine).join()");
        assert_eq!(struck, vec!["line-through"; models - 1].join(","));
        let struck = browser.text("getComputedStyle(document.querySelector('svg .struck')).textDecorationLine");
        assert_eq!(struck, "line-through");
        assert!(
            browser
                .text("document.querySelector('td:has(s)').textContent")
                .ends_with("(its choice follows the order of the answers)")
        );
    }
}

/// An example of 60 prompts and six models in a browser, if there is one.
fn opened(name: &str, texts: &Texts) -> Option<(Browser, PathBuf, Kept)> {
    let mut browser = Browser::start()?;
    let kept = Kept::new();
    let path = kept.page(name, &page(texts));
    browser.open(&path, "", SCREENS[0]);
    browser.wait(READY);
    Some((browser, path, kept))
}

const READY: &str = "document.getElementById('generations').dataset.ready === ''";
const RESET: &str = "document.querySelector('.controls button').click()";
const NEXT: &str = "document.querySelectorAll('.pager button')[1].click()";
const TEXTS: &str = "[...document.querySelectorAll('.card')].map((card) => card.outerHTML.replace(/\\s+/g, ' '))";

#[test]
fn prompts_are_searched_and_turned_page_by_page() {
    let texts = texts(60, 6, 1);
    let Some((mut browser, ..)) = opened("search.html", &texts) else { return };
    // The script makes the same page as came with the file.
    let came = browser.eval(TEXTS);
    browser.eval(RESET);
    let made = browser.eval(TEXTS);
    for (came, made) in came.as_array().expect("cards").iter().zip(made.as_array().expect("cards")) {
        assert!(came == made, "{came}\n{made}");
    }
    assert_eq!(count(&mut browser), "60 of 60 prompts, page 1 of 3");
    assert_eq!(numbers(&mut browser), (1..=25).collect::<Vec<_>>());

    // To a last page that is not full.
    browser.eval(NEXT);
    browser.eval(NEXT);
    assert_eq!(count(&mut browser), "60 of 60 prompts, page 3 of 3");
    assert_eq!(numbers(&mut browser), (51..=60).collect::<Vec<_>>());
    let disabled = browser.eval("[...document.querySelectorAll('.pager button')].map((button) => button.disabled)");
    assert_eq!(disabled, json!([false, true, false, true]));

    // All words of a search, in prompt or answers, and marked; not in answers of models that are not shown.
    set(&mut browser, "search", "  ZZYZX \"quoted\"");
    browser.wait("document.querySelector('.controls output').textContent.startsWith('1 of 60')");
    assert_eq!(numbers(&mut browser), [2]);
    let marked = browser.text("[...document.querySelectorAll('mark')].map((mark) => mark.textContent).join()");
    assert_eq!(marked, "\"quoted\",zzyzx");
    set(&mut browser, "start", "off");
    assert_eq!(count(&mut browser), "0 of 60 prompts");
    set(&mut browser, "start", "on");
    assert_eq!(browser.eval("document.querySelectorAll('img, .card script').length"), 0);
    assert_eq!(browser.problems(), [] as [String; 0]);
}

#[test]
fn prompts_are_filtered_by_what_a_judge_said_of_a_pair() {
    let texts = texts(60, 6, 1);
    let Some((mut browser, ..)) = opened("judged.html", &texts) else { return };
    // The first judge says everything in turn, here seen from the other side; the second flips.
    set(&mut browser, "compare", "sft");
    set(&mut browser, "with", "start");
    set(&mut browser, "judge", "mistral");
    let outcomes =
        [("sft beats start", 2), ("start beats sft", 1), ("tie", 3), ("flip", 4), ("unparsed", 5), ("not judged", 6)];
    for (outcome, first) in outcomes {
        set(&mut browser, "outcome", outcome);
        assert_eq!(numbers(&mut browser), (first..=60).step_by(6).collect::<Vec<_>>(), "{outcome}");
    }
    set(&mut browser, "judge", "smollm2");
    set(&mut browser, "outcome", "flip");
    assert_eq!(count(&mut browser), "60 of 60 prompts, page 1 of 3");
    let said = browser.text("document.querySelector('.verdicts').innerText");
    let expected = "mistral: start beats sft\nsmollm2 (not to be trusted): sft or start by their order (a flip)";
    assert_eq!(said, expected);
    // No pair, no outcome.
    set(&mut browser, "outcome", "tie");
    assert_eq!(count(&mut browser), "0 of 60 prompts");
    set(&mut browser, "with", "nobody");
    assert_eq!(count(&mut browser), "60 of 60 prompts, page 1 of 3");
    assert_eq!(browser.problems(), [] as [String; 0]);
}

#[test]
fn prompts_are_sorted_with_what_has_no_value_last() {
    let texts = texts(60, 6, 1);
    let Some((mut browser, ..)) = opened("sorted.html", &texts) else { return };
    // By a model's reward, which the sixth prompt lacks.
    let reward = |i: usize| (i * 7 % 11) as f64;
    for (order, sign) in [("highest first", -1.0), ("lowest first", 1.0)] {
        set(&mut browser, "sort by", "reward");
        set(&mut browser, "of", "sft");
        set(&mut browser, "order", order);
        let mut expected: Vec<usize> = (0..60).filter(|i| *i != 5).collect();
        expected.sort_by(|a, b| (sign * reward(*a)).total_cmp(&(sign * reward(*b))));
        let expected: Vec<usize> = expected.into_iter().map(|i| i + 1).collect();
        assert_eq!(numbers(&mut browser), expected[..25], "{order}");
        browser.eval(NEXT);
        browser.eval(NEXT);
        assert_eq!(numbers(&mut browser).last(), Some(&6), "{order}");
    }
    // By what two differ in.
    let length = |i: usize, m: usize| texts.answers[i][m][0].chars().count() as i64;
    set(&mut browser, "compare", "rpo");
    set(&mut browser, "with", "kto");
    set(&mut browser, "sort by", "length of the answer");
    set(&mut browser, "of", "rpo less kto");
    let most = (0..60).rev().max_by_key(|i| length(*i, 2) - length(*i, 4)).expect("prompts");
    assert_eq!(numbers(&mut browser)[0], most + 1);
    set(&mut browser, "sort by", "ROUGE-L");
    set(&mut browser, "of", "rpo");
    let most = (0..60).rev().max_by_key(|i| i * 13 % 100).expect("prompts");
    assert_eq!(numbers(&mut browser)[0], most + 1);
    assert_eq!(browser.problems(), [] as [String; 0]);
}

#[test]
fn differences_are_marked_word_by_word() {
    let mut texts = texts(60, 6, 1);
    // Of 3,000 words each, too many for every pair of words to be looked at: alike at the beginning and the end.
    for (model, kind) in ["a", "b"].iter().enumerate() {
        let middle: Vec<String> = (0..3000).map(|i| format!("{kind}{i}")).collect();
        texts.answers[5][model][0] = format!("alike {} too", middle.join(" "));
    }
    let Some((mut browser, ..)) = opened("compared.html", &texts) else { return };
    set(&mut browser, "compare", "start");
    set(&mut browser, "with", "sft");
    set(&mut browser, "mark the differences", "on");
    let marked = |browser: &mut Browser, card: usize| {
        let all = format!("[...document.querySelectorAll('#p{card} del, #p{card} ins')]");
        browser.text(&format!("{all}.map((mark) => mark.tagName + ' ' + mark.textContent).join()"))
    };
    assert_eq!(marked(&mut browser, 3), "DEL the,INS old,INS down,INS a");
    // Letter by letter where there are no spaces.
    assert_eq!(marked(&mut browser, 4), "DEL 棕,INS 红");
    // The cat sat on mat and the point, of 7 and 9.
    assert_eq!(browser.text("document.querySelector('#p3 .told').textContent"), "75 % of the words are common.");
    assert_eq!(browser.text("document.querySelector('#p3 .answer .text').textContent"), texts.answers[2][0][0]);
    // By more than colour.
    let style = |tag| format!("getComputedStyle(document.querySelector('#p3 {tag}')).textDecorationStyle");
    assert_eq!((browser.text(&style("del")), browser.text(&style("ins"))), ("dashed".into(), "double".into()));
    let long = browser.text("document.querySelector('#p6 .told').textContent");
    assert!(long.starts_with("0 % of the words are common. Too long to compare"), "{long}");
    assert_eq!(
        browser.text("document.querySelector('#p6 del').textContent.length").parse(),
        Ok(texts.answers[5][0][0].len() - 10)
    );
    let common = browser.text("document.querySelector('#p5 .told').textContent");
    assert_eq!(common, "0 % of the words are common.", "one answer is empty");
    assert_eq!(browser.problems(), [] as [String; 0]);
}

#[test]
fn links_and_keys_lead_to_prompts() {
    let texts = texts(60, 6, 1);
    let Some((mut browser, path, _kept)) = opened("keys.html", &texts) else { return };
    set(&mut browser, "search", "zzyzx");
    browser.wait("document.querySelectorAll('.card').length === 1");
    browser.eval("location.hash = '#p57'");
    browser.wait("document.activeElement.id === 'p57'");
    assert_eq!(count(&mut browser), "60 of 60 prompts, page 3 of 3");
    for (key, at) in [("k", "p56"), ("p", "p26"), ("k", "p25"), ("j", "p26"), ("n", "p51")] {
        browser.press(key);
        assert_eq!(browser.text("document.activeElement.id"), at, "{key}");
    }
    browser.press("/");
    assert_eq!(browser.text("document.activeElement.type"), "search");
    browser.press("j");
    assert_eq!(browser.text("document.activeElement.value"), "j", "a letter where one types");
    browser.open(&path, "#p40", SCREENS[2]);
    browser.wait("document.activeElement.id === 'p40'");
    assert_eq!(browser.overflow(), (0.0, String::new()));
    assert_eq!(browser.problems(), [] as [String; 0]);
}

#[test]
fn tables_are_sorted_and_saved_with_what_is_struck_out() {
    let texts = texts(10, 6, 1);
    let Some((mut browser, ..)) = opened("table.html", &texts) else { return };
    browser.eval(
        "window.saved = null; URL.createObjectURL = (blob) => { blob.text().then((text) => (window.saved = text)); return '#'; }",
    );
    browser.eval("document.querySelector('.save').click()");
    browser.wait("window.saved !== null");
    let saved = browser.text("window.saved");
    let lines: Vec<&str> = saved.lines().collect();
    assert_eq!(lines[0], "model,mistral,smollm2");
    assert_eq!(lines[1], "sft,\"0.40 [0.33, 0.47]\",\"0.40 [0.33, 0.47] (struck out)\"");
    browser.eval("document.querySelectorAll('th button')[2].click()");
    assert!(browser.text("document.querySelector('tbody th').textContent").starts_with("a/directory"));
    assert_eq!(browser.problems(), [] as [String; 0]);
}

#[test]
fn two_thousand_prompts_of_six_models_stay_fluid() {
    let Some(mut browser) = Browser::start() else { return };
    let kept = Kept::new();
    let texts = texts(2000, 6, 1);
    let begun = Instant::now();
    let path = kept.page("large.html", &page(&texts));
    let written = begun.elapsed();
    let letters: usize = texts.answers.iter().flatten().flatten().chain(&texts.prompts).map(String::len).sum();
    let size = std::fs::metadata(&path).expect("page").len() as usize;
    let begun = Instant::now();
    browser.open(&path, "", SCREENS[0]);
    browser.wait(READY);
    let loaded = begun.elapsed();
    let mut timed = |what: &str| {
        let took = browser.eval(&format!(
            "(async () => {{ const begun = performance.now(); {what}; document.body.offsetHeight; return performance.now() - begun }})()"
        ));
        took.as_f64().expect("milliseconds")
    };
    let change = "const set = (l, v) => { const c = [...document.querySelectorAll('.controls label')].find((x) => x.querySelector('span').textContent === l).querySelector('select, input'); \
         c.value = v; c.dispatchEvent(new Event('change')); };";
    let next = timed("document.querySelectorAll('.pager button')[1].click()");
    let sort = timed(&format!("{change} set('sort by', 'length')"));
    let pair = timed(&format!("{change} set('compare', '1'); set('with', '2'); set('outcome', 'f')"));
    let diff = timed("[...document.querySelectorAll('.check input')].at(-1).click()");
    let search = timed(
        "const input = document.querySelector('[type=search]'); input.value = 'mountain zzzyx'; input.dispatchEvent(new Event('input')); \
         while (!document.querySelector('output').textContent.startsWith('0 of')) await new Promise((go) => setTimeout(go, 1))",
    );
    eprintln!(
        "{letters} bytes of text: page of {size} bytes written in {written:.0?}, loaded in {loaded:.0?}; next page {next:.0} ms, \
         sort {sort:.0} ms, pair and outcome {pair:.0} ms, differences {diff:.0} ms, first search {search:.0} ms with its delay"
    );
    assert!(size < letters + 2_000_000, "{size} for {letters}");
    // Ten times what they take on a busy machine.
    for (what, took) in [("next", next), ("sort", sort), ("pair", pair), ("diff", diff), ("search", search)] {
        assert!(took < 5000.0, "{what}: {took} ms");
    }
    assert_eq!(browser.problems(), [] as [String; 0]);
}

#[test]
fn without_a_script_the_first_page_is_there() {
    let Some(mut browser) = Browser::start() else { return };
    let kept = Kept::new();
    let texts = texts(30, 3, 2);
    let path = kept.page("plain.html", &page(&texts));
    browser.call("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    for screen in SCREENS {
        browser.open(&path, "", screen);
        assert_eq!(browser.eval("document.querySelectorAll('.card').length"), 25);
        let said = browser.text("document.querySelector('main').innerText");
        assert!(said.contains("only the first 25 of 30 prompts") && said.contains(&texts.answers[24][2][1][..60]));
        assert!(!said.contains("Save as CSV"));
        assert_eq!(browser.overflow(), (0.0, String::new()));
    }
    kept.picture(&mut browser, "plain.png", "main");
    assert_eq!(browser.problems(), [] as [String; 0]);
}

//! A report with one of everything, of made-up answers and verdicts.

use rpo::statistics::Interval;

use crate::report::{
    Answer, Axis, Bar, Bars, Cell, Column, Contestant, Generated, Generations, Histogram, Judge, Outcome, Page, Sample,
    ValueColumn, Verdict, provenance, show,
};

pub const LABELS: [&str; 6] = ["start", "sft", "rpo", "dro", "kto", "a/directory/with-a-rather-long-name/best"];

/// Numbers that look random.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn text(&mut self, words: usize) -> String {
        const WORDS: &str = "the of a model answer reward judge prompt learning with from which better longer shorter river \
             mountain seventeen perhaps because therefore however translation garden policy, reference. partition: naïve über";
        let known: Vec<&str> = WORDS.split(' ').collect();
        (0..words).map(|_| known[self.below(known.len())]).collect::<Vec<_>>().join(" ")
    }
}

/// Texts of prompts and of answers by prompt, model and draw.
pub struct Texts {
    pub prompts: Vec<String>,
    pub answers: Vec<Vec<Vec<String>>>,
}

pub fn texts(prompts: usize, models: usize, draws: usize) -> Texts {
    let mut noise = Noise(7);
    let mut answers: Vec<Vec<Vec<String>>> = (0..prompts)
        .map(|i| {
            let mut draws = |model: usize| {
                (0..draws)
                    .map(|_| {
                        // Some long ones, and for each model another length.
                        let words = 20 + 8 * model + noise.below(if (i + model).is_multiple_of(7) { 300 } else { 90 });
                        noise.text(words)
                    })
                    .collect()
            };
            (0..models).map(&mut draws).collect()
        })
        .collect();
    let mut prompts: Vec<String> =
        (0..prompts).map(|i| format!("Question {i} about {}?", noise.text(6 + i % 30))).collect();
    // Markup, directions, scripts without spaces, and one long word.
    prompts[1] = "</script><script>console.error('ran')</script><!-- <b>bold?</b> \u{2028} &amp; \"quoted\"".into();
    answers[1][0][0] = "<img src=x onerror=\"console.error('loaded')\"> zzyzx".into();
    answers[2][0][0] = "The cat sat on the mat.".into();
    answers[2][1][0] = "The old cat sat down on a mat.".into();
    answers[3][0][0] = "敏捷的棕色狐狸跳过了懒狗。".into();
    answers[3][1][0] = "敏捷的红色狐狸跳过了懒狗。".into();
    answers[4][0][0] = format!("https://example.org/{}", "long".repeat(80));
    answers[4][1][0] = String::new();
    Texts { prompts, answers }
}

fn generations(texts: &Texts) -> Generations<'_> {
    let models = texts.answers[0].len();
    let of = |prompt: usize, model: usize, draw: usize, text| Answer {
        text,
        reward: (prompt != 5 || model != 1)
            .then_some((prompt * 7 % 11) as f64 / 4.0 + model as f64 + draw as f64 / 10.0),
        values: vec![Some((prompt * 13 % 100) as f64 + 0.06), (!prompt.is_multiple_of(3)).then_some(0.012)],
    };
    let prompts = texts.prompts.iter().zip(&texts.answers).enumerate().map(|(i, (prompt, answers))| Generated {
        prompt,
        references: if i % 4 == 0 { vec!["What somebody wrote before."] } else { vec![] },
        part: Some(if i % 2 == 0 { "choosing" } else { "judging" }),
        answers: answers
            .iter()
            .enumerate()
            .map(|(m, draws)| draws.iter().enumerate().map(|(d, text)| of(i, m, d, text.as_str())).collect())
            .collect(),
    });
    let outcomes = [Outcome::Won, Outcome::Lost, Outcome::Tie, Outcome::Flip, Outcome::Unparsed];
    let pairs: Vec<[usize; 2]> = (0..models).flat_map(|a| (a + 1..models).map(move |b| [a, b])).collect();
    let draws = texts.answers[0][0].len();
    // The first judge says everything in turn and nothing of every sixth prompt; the second follows the place.
    let verdicts = (0..texts.prompts.len()).flat_map(|prompt| {
        pairs.iter().flat_map(move |models| {
            (0..draws).flat_map(move |draw| {
                let first = outcomes.get(prompt % 6).map(|outcome| (0, *outcome));
                let said = first.into_iter().chain([(1, Outcome::Flip)]);
                said.map(move |(judge, outcome)| Verdict { judge, prompt, models: *models, draw, outcome })
            })
        })
    });
    Generations {
        models: (0..models).map(|i| Contestant { label: LABELS[i], colour: i.checked_sub(1) }).collect(),
        judges: vec![Judge { label: "mistral", trusted: true }, Judge { label: "smollm2", trusted: false }],
        values: vec![ValueColumn { label: "ROUGE-L", digits: 1 }, ValueColumn { label: "toxicity", digits: 3 }],
        prompts: prompts.collect(),
        verdicts: verdicts.collect(),
    }
}

/// A page with one of everything.
pub fn page(texts: &Texts) -> Page {
    let mut page = Page::new("How models answer", "Win rates by two judges, metrics, and all answers.");
    let models = texts.answers[0].len();
    let interval =
        |i: usize| Interval { mean: 0.4 + 0.1 * i as f64, low: 0.33 + 0.1 * i as f64, high: 0.47 + 0.1 * i as f64 };
    let bar = |i: usize, struck| Bar {
        label: LABELS[i].into(),
        interval: Some(interval(i - 1)),
        words: show(interval(i - 1), 2),
        colour: Some(i - 1),
        struck,
    };
    let wins = |title, struck| Bars {
        title,
        note: "Share of prompts won against the start; a tie counts half.".into(),
        axis: Axis::even("win rate"),
        rows: (1..models).map(|i| bar(i, struck)).collect(),
        marks: vec![(0.5, "as good as the start")],
        within: &[0.0, 1.0],
    };
    let sample = |values: &dyn Fn(usize, &str) -> f64| -> Vec<Sample> {
        let of = |m: usize| texts.answers.iter().enumerate().map(|(i, a)| values(i * 7 + m, &a[m][0])).collect();
        let sample = |m: usize| Sample { label: LABELS[m].into(), values: of(m), colour: m.checked_sub(1) };
        (0..models).map(sample).collect()
    };
    let histogram = |title, axis, rows, within| Histogram { title, note: "First draws.".into(), axis, rows, within };
    page.figures(&[
        wins("Judged by mistral", false).figure(),
        wins("Judged by smollm2", true).figure(),
        histogram("Length", Axis::whole("characters"), sample(&|_, text| text.chars().count() as f64), &[]).figure(),
        histogram("Ratings", Axis::whole("rating"), sample(&|i, _| (3 + i % 13 % 8) as f64), &[1.0, 10.0]).figure(),
        histogram("Rewards", Axis::even("reward"), sample(&|i, _| ((i * 37 % 101) as f64 / 50.0 - 1.0).powi(3)), &[])
            .figure(),
    ]);
    page.heading("Win rates");
    let columns = [Column::Text("model"), Column::Number("mistral"), Column::Number("smollm2")];
    let row = |i: usize| {
        let wins = show(interval(i - 1), 2);
        let doubted = Cell::from(wins.clone()).struck("its choice follows the order of the answers");
        vec![Cell::from(LABELS[i]), wins.into(), doubted]
    };
    page.table("Win rates", &columns, &(1..models).map(row).collect::<Vec<_>>());
    page.note("Struck out: smollm2 prefers the answer that is shown first in 98 % of cases.");
    page.heading("All answers");
    page.generations(&generations(texts));
    page.provenance(&provenance());
    page
}

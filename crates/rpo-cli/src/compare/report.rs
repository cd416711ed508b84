//! What a comparison found, for people (terminal and report.html) and programs (compare.json).

use std::path::Path;

use anyhow::Result;
use rpo::evaluate::{Estimate, of};

use super::arena::{Arena, Verdict};
use super::record::Start;
use super::{Comparison, figures};
use crate::report::{
    Answer, Column, Contestant, Generated, Generations, Page, Provenance, estimate, print_table, provenance,
};

/// Prints the table, and writes report.html and compare.json.
pub fn write(comparison: &Comparison, arena: &Arena<'_>, start: &Start, verdicts: &[Verdict]) -> Result<()> {
    let judged = verdicts.iter().any(|v| v.reward.is_some());
    let mut page = Page::new(&comparison.title, &comparison.introduction);
    page.figures(&figures::results(verdicts, comparison.best_reward));
    page.heading("Results on held-out prompts");
    let (columns, rows) = table(verdicts, judged);
    println!("\n== Held-out prompts ==");
    print_table(&columns, &rows);
    page.table("Results", &columns, &rows);
    page.paragraph(&method(comparison, arena, judged));
    if judged {
        page.heading("Who beats whom");
        page.paragraph("Share of the judged prompts on which the reward of the row is more than that of the column.");
        let (columns, rows) = duels(verdicts, &arena.judging);
        page.table("Win rates", &columns, &rows);
        page.heading("How answers differ");
        page.figures(&figures::answers(verdicts, &arena.judging));
    }
    choice(&mut page, verdicts, judged);
    figures::training(&mut page, verdicts)?;
    if judged {
        answers(&mut page, arena, verdicts);
    }
    page.provenance(&origin(comparison, start, verdicts)?);
    let path = comparison.out.join("compare.json");
    let json = serde_json::json!({
        "held_out_prompts": arena.prompts.len(), "judged_on": arena.judging, "seeds": comparison.draws(),
        "judge": comparison.judged_by, "models": verdicts,
    });
    rpo::store::files::write_file(&path, serde_json::to_string_pretty(&json)?.as_bytes())?;
    let path = comparison.out.join("report.html");
    page.write(&path)?;
    println!("\nreport: {}", path.display());
    Ok(())
}

/// What was done, in words.
fn method(comparison: &Comparison, arena: &Arena<'_>, judged: bool) -> String {
    let k = comparison.draws();
    let text = format!(
        "{} judged prompts; {k} {} of each objective from the same start on the same data. tau-b is Kendall's rank \
         correlation between a policy's log-ratio to the start, summed over a response's tokens (or per token), and the \
         reward of a prompt's rated responses, mean over the prompts on which it is defined: not those with one response \
         or with equal rewards. Spearman's is over all responses of the judged prompts, n of them. Intervals of 95 %, \
         over prompts; n says how many values entered.",
        arena.judging.len(),
        if k == 1 { "run" } else { "runs" },
    );
    let rewards = if judged { rewards(comparison, k) } else { String::new() };
    let chosen = match arena.choosing.len() {
        0 => String::new(),
        n => format!(
            " Each objective chose its learning rate among the same ones by {} on {n} other held-out prompts.",
            if judged { "mean reward" } else { "tau-b of the summed log-ratios" }
        ),
    };
    let these = if chosen.is_empty() { "these same" } else { "those other" };
    let model = format!(
        " Judged is best/, the step with the lowest loss of the objective itself on {these} prompts, or last/ where no step \
         was better than the start."
    );
    text + &rewards + &chosen + &model
}

/// How answers were drawn and rated, in words.
fn rewards(comparison: &Comparison, k: usize) -> String {
    let by = comparison.judged_by.as_deref().map_or_else(String::new, |judge| format!(", rated by `{judge}`"));
    format!(
        " A prompt's reward is the mean over {k} drawn {}{by}, one by each run and as many by the start; wins compare these \
         means, and ties are half a win.",
        if k == 1 { "answer" } else { "answers" },
    )
}

fn table(verdicts: &[Verdict], judged: bool) -> (Vec<Column<'static>>, Vec<Vec<String>>) {
    let mut columns = vec![Column::Text("objective"), Column::Text("model")];
    if judged {
        columns.extend([Column::Number("mean reward"), Column::Number("wins against start")]);
    }
    columns.extend(["tau-b", "tau-b per token", "Spearman", "learning rate", "seconds a run"].map(Column::Number));
    let dash = |text: String| if text.is_empty() { "-".into() } else { text };
    let row = |v: &Verdict| {
        let models: Vec<String> = v.judged.iter().map(ToString::to_string).collect();
        let mut row = vec![v.label.clone(), dash(models.join(", "))];
        if judged {
            row.extend([v.reward, v.wins_against_start].map(|e| estimate(e, 2)));
        }
        row.extend([v.tau_b, v.tau_b_per_token, v.spearman].map(|e| estimate(e, 3)));
        row.push(dash(v.learning_rate.map_or_else(String::new, |rate| rate.to_string())));
        row.push(dash(v.seconds.map_or_else(String::new, |s| format!("{s:.1} n={}", v.runs))));
        row
    };
    (columns, verdicts.iter().map(row).collect())
}

/// Win rates of every model against every other.
fn duels<'a>(verdicts: &'a [Verdict], prompts: &[usize]) -> (Vec<Column<'a>>, Vec<Vec<String>>) {
    let columns = std::iter::once(Column::Text("")).chain(verdicts.iter().map(|v| Column::Number(&v.label)));
    let against = |a: &Verdict, b: &Verdict| match a.label == b.label {
        true => "-".to_string(),
        false => estimate(Estimate::wins(&of(&a.rewards, prompts), &of(&b.rewards, prompts)), 2),
    };
    let row = |a: &Verdict| std::iter::once(a.label.clone()).chain(verdicts.iter().map(|b| against(a, b))).collect();
    (columns.collect(), verdicts.iter().map(row).collect())
}

/// What each learning rate was worth, where there was a choice.
fn choice(page: &mut Page, verdicts: &[Verdict], judged: bool) {
    let row = |v: &Verdict| -> Vec<Vec<String>> {
        let cells = v.tried.iter().map(|tried| {
            let chosen = if v.learning_rate == Some(tried.learning_rate) { "chosen" } else { "" };
            let worth = estimate(tried.worth, 3);
            vec![v.label.clone(), tried.learning_rate.to_string(), worth, chosen.into()]
        });
        cells.collect()
    };
    let rows: Vec<Vec<String>> = verdicts.iter().flat_map(row).collect();
    if !rows.is_empty() {
        page.heading("Choosing the learning rate, on prompts that are not judged");
        let worth = if judged { "mean reward" } else { "tau-b" };
        let columns =
            [Column::Text("objective"), Column::Number("learning rate"), Column::Number(worth), Column::Text("")];
        page.table("Learning rates", &columns, &rows);
    }
}

/// What a model answered to prompt `i`.
fn drawn(v: &Verdict, i: usize) -> Vec<Answer<'_>> {
    v.draws
        .iter()
        .map(|draw| Answer { text: &draw.answers[i], reward: Some(draw.rewards[i]), values: Vec::new() })
        .collect()
}

/// All that was answered, by prompt.
fn answers(page: &mut Page, arena: &Arena<'_>, verdicts: &[Verdict]) {
    page.heading("All answers");
    page.paragraph(
        "Each held-out prompt with the answers that were drawn from the models and their rewards. The search finds prompts in \
         which, with the answers that are shown, all its words are.",
    );
    let row = |(i, prompt)| Generated {
        prompt,
        references: Vec::new(),
        part: (!arena.choosing.is_empty()).then(|| if arena.choosing.contains(&i) { "choosing" } else { "judging" }),
        answers: verdicts.iter().map(|v| drawn(v, i)).collect(),
    };
    let start = verdicts.iter().filter(|v| v.settings.is_none()).count();
    page.generations(&Generations {
        models: verdicts
            .iter()
            .enumerate()
            .map(|(i, v)| Contestant { label: &v.label, colour: i.checked_sub(start) })
            .collect(),
        judges: Vec::new(),
        values: Vec::new(),
        prompts: arena.prompts.iter().map(String::as_str).enumerate().map(row).collect(),
        verdicts: Vec::new(),
    });
}

/// Where the comparison comes from.
fn origin(comparison: &Comparison, start: &Start, verdicts: &[Verdict]) -> Result<Provenance> {
    let mut origin = provenance();
    let Some(first) = comparison.all().next() else { return Ok(origin) };
    origin = origin
        .fact("start", &first.model)
        .fact("data", first.data.to_string())
        .fact("data fingerprint", &start.basis.data_fingerprint)
        .fact("judge", comparison.judged_by.as_deref().unwrap_or("none"));
    // A start that is the best/ or last/ of a run has that run's settings beside it.
    let beside = Path::new(&first.model).parent().map(|run| run.join("config.toml"));
    if let Some(toml) = beside.and_then(|path| std::fs::read_to_string(path).ok()) {
        origin = origin.settings("Settings of the run that made the start", toml);
    }
    for Verdict { label, settings, .. } in verdicts {
        if let Some(settings) = settings {
            origin = origin.settings(format!("Settings of {label}"), settings.to_toml()?);
        }
    }
    let decoding = toml::to_string_pretty(&comparison.decoding)?;
    Ok(if comparison.judged_by.is_some() { origin.settings("How answers are drawn", decoding) } else { origin })
}

//! The demo's `report.html`: one file without scripts or links, curves as inline SVG.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Verdict;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;\
color:#1c2330;background:#fff}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}table{border-collapse:collapse;\
width:100%}th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #8884;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:auto}text{font-size:12px;fill:currentColor}\
.train{stroke:#0072b2;opacity:.55}.held{stroke:#d55e00}path{fill:none;stroke-width:2}line{stroke:currentColor;opacity:.2}\
@media(prefers-color-scheme:dark){body{color:#e6e9ef;background:#14171d}}";

/// Writes the report of the runs below `out` to `path`.
pub fn write(
    path: &Path,
    out: &Path,
    prompts: &[String],
    before: &Verdict,
    after: &Verdict,
    gain: [f64; 3],
) -> Result<()> {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>rpo demo</title><style>{STYLE}</style><h1>Learning from ratings: SFT, then RPO</h1>\
         <p>A small T5 first learned to answer customers as a mixed crowd did, then from ratings which answers to give. \
         Below: {} customers that were never trained on, one drawn answer each, rated by an exact rule.</p>\
         <table><tr><th>Model<th class=\"n\">Mean reward<th class=\"n\">95 % interval</tr>",
        prompts.len()
    );
    for (name, [mean, low, high]) in [("SFT", before.interval()), ("RPO", after.interval()), ("Difference", gain)] {
        write!(html, "<tr><td>{name}<td class=\"n\">{mean:.2}<td class=\"n\">{low:.2} to {high:.2}</tr>")?;
    }
    html += "</table>";
    for (name, run) in [("SFT loss", "sft"), ("RPO loss", "rpo")] {
        let log = out.join(run).join("metrics.jsonl");
        let text = std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        write!(html, "<h2>{name}</h2>{}", chart(name, &series(&text, "train"), &series(&text, "validation")))?;
    }
    html += "<h2>Answers</h2><table><tr><th>Customer<th>Before (SFT)<th class=\"n\">Reward<th>After (RPO)<th class=\"n\">Reward</tr>";
    for (i, prompt) in prompts.iter().take(12).enumerate() {
        write!(html, "<tr><td>{}", escape(prompt))?;
        for verdict in [before, after] {
            write!(html, "<td>{}<td class=\"n\">{:.2}", escape(&verdict.answers[i]), verdict.rewards[i])?;
        }
        html += "</tr>";
    }
    html += "</table></html>\n";
    std::fs::write(path, html).with_context(|| format!("cannot write {}", path.display()))
}

/// Points (step, loss) of one split.
fn series(log: &str, split: &str) -> Vec<(f64, f64)> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|v| v["split"] == split).filter_map(|v| Some((v["step"].as_f64()?, v["loss"].as_f64()?))).collect()
}

fn chart(title: &str, train: &[(f64, f64)], held_out: &[(f64, f64)]) -> String {
    const W: f64 = 720.0;
    const H: f64 = 260.0;
    const LEFT: f64 = 56.0;
    const BOTTOM: f64 = 28.0;
    let all = || train.iter().chain(held_out);
    let right = all().map(|p| p.0).fold(1.0, f64::max);
    let top = all().map(|p| p.1).fold(f64::MIN_POSITIVE, f64::max);
    let low = all().map(|p| p.1).fold(0.0, f64::min);
    let x = |step: f64| LEFT + step / right * (W - LEFT - 90.0);
    let y = |loss: f64| 10.0 + (top - loss) / (top - low) * (H - BOTTOM - 10.0);
    let mut svg = format!("<svg viewBox=\"0 0 {W} {H}\" role=\"img\"><title>{}</title>", escape(title));
    for i in 0..=4 {
        let loss = low + (top - low) * f64::from(i) / 4.0;
        let at = y(loss);
        let _ = write!(svg, "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", W - 90.0);
        let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.2}</text>", LEFT - 6.0, at + 4.0);
        let step = right * f64::from(i) / 4.0;
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{step:.0}</text>", x(step), H - 8.0);
    }
    for (class, label, points) in [("train", "training", train), ("held", "held out", held_out)] {
        let path: Vec<String> = points.iter().map(|(s, l)| format!("{:.1} {:.1}", x(*s), y(*l))).collect();
        if let Some((step, loss)) = points.last() {
            let _ = write!(svg, "<path class=\"{class}\" d=\"M{}\"/>", path.join("L"));
            let lift = if class == "held" { -6.0 } else { 12.0 };
            let _ = write!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{label}</text>", x(*step) + 6.0, y(*loss) + lift);
        }
    }
    svg + "</svg>"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_texts_stays_text() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
    }

    #[test]
    fn a_chart_without_points_is_still_well_formed() {
        assert!(!chart("t", &[], &[]).contains("NaN"));
        assert!(!chart("t", &[(1.0, 0.0)], &[]).contains("NaN"));
    }
}

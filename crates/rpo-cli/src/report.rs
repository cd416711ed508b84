//! Reports as single HTML files without scripts or links: text, tables, and charts as inline SVG.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use rpo::statistics::Interval;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1c2330;background:#fff}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}.t{overflow-x:auto}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #8884;\
vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
svg{width:100%;height:auto}text{font-size:12px;fill:currentColor}path{fill:none;stroke-width:2}\
line.g{stroke:currentColor;opacity:.18}@media(prefers-color-scheme:dark){body{color:#e6e9ef;background:#14171d}}";

/// Colours that people with colour-blindness tell apart (Okabe and Ito), readable on light and dark.
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a63d2", "#7f7f7f"];
const DASHES: [&str; 3] = ["none", "7 3", "2 3"];

/// A page under construction.
pub struct Page {
    html: String,
}

/// A column of a table.
pub enum Column<'a> {
    /// Left-aligned.
    Text(&'a str),
    /// Right-aligned.
    Number(&'a str),
}

/// A line of a chart with its name.
pub struct Series {
    /// Shown in the legend.
    pub label: String,
    /// `(x, y)` in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// The ends of `y`'s interval at each point; empty for none.
    pub intervals: Vec<(f64, f64)>,
}

impl Series {
    /// A line without intervals.
    pub fn line(label: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { label: label.into(), points, intervals: Vec::new() }
    }
}

/// What a chart shows on its axes.
pub struct Axes {
    /// Below.
    pub x: &'static str,
    /// At the left.
    pub y: &'static str,
    /// Whether `x` is logarithmic.
    pub log_x: bool,
}

/// `mean [low, high]`.
pub fn show(interval: Interval, digits: usize) -> String {
    let Interval { mean, low, high } = interval;
    if low.is_infinite() {
        return format!("{mean:.digits$}");
    }
    format!("{mean:.digits$} [{low:.digits$}, {high:.digits$}]")
}

impl Page {
    /// A page with a title and a paragraph.
    pub fn new(title: &str, introduction: &str) -> Self {
        let title = escape(title);
        let html = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        );
        let mut page = Self { html };
        page.paragraph(introduction);
        page
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        let _ = write!(self.html, "<h2>{}</h2>", escape(text));
    }

    /// A paragraph of plain text.
    pub fn paragraph(&mut self, text: &str) {
        let _ = write!(self.html, "<p>{}</p>", escape(text));
    }

    /// A table of plain texts.
    pub fn table(&mut self, columns: &[Column<'_>], rows: &[Vec<String>]) {
        let class = |column: &Column<'_>| if matches!(column, Column::Number(_)) { " class=\"n\"" } else { "" };
        self.html += "<div class=\"t\"><table><tr>";
        for column in columns {
            let (Column::Text(name) | Column::Number(name)) = column;
            let _ = write!(self.html, "<th{}>{}", class(column), escape(name));
        }
        for row in rows {
            self.html += "<tr>";
            for (column, cell) in columns.iter().zip(row) {
                let _ = write!(self.html, "<td{}>{}", class(column), escape(cell));
            }
        }
        self.html += "</table></div>";
    }

    /// A chart with a legend.
    pub fn chart(&mut self, title: &str, axes: &Axes, series: &[Series]) {
        self.html += &chart(title, axes, series);
    }

    /// Writes the page.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, format!("{}</html>\n", self.html))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The same table for a terminal.
pub fn print_table(columns: &[Column<'_>], rows: &[Vec<String>]) {
    let name = |column: &Column<'_>| match column {
        Column::Text(name) | Column::Number(name) => (*name).to_string(),
    };
    let header: Vec<String> = columns.iter().map(name).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| rows.iter().chain([&header]).map(|row| row[i].chars().count()).max().unwrap_or(0))
        .collect();
    for row in [&header].into_iter().chain(rows) {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, column), width)| match column {
            Column::Text(_) => format!("{cell:<width$}"),
            Column::Number(_) => format!("{cell:>width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 44.0;
const LEGEND_ROW: f64 = 18.0;
const LEGEND_COLUMNS: usize = 4;

fn chart(title: &str, axes: &Axes, series: &[Series]) -> String {
    let finite = |v: &f64| v.is_finite();
    let along = |x: f64| if axes.log_x { x.ln() } else { x };
    let xs = || series.iter().flat_map(|s| &s.points).map(|p| along(p.0)).filter(finite);
    let ends = || series.iter().flat_map(|s| &s.intervals).flat_map(|i| [i.0, i.1]);
    let ys = || series.iter().flat_map(|s| &s.points).map(|p| p.1).chain(ends()).filter(finite);
    let (left, right) = span(xs());
    let (bottom, top) = span(ys());
    let x = |v: f64| LEFT + (along(v) - left) / (right - left) * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| TOP + (top - v) / (top - bottom) * (HEIGHT - TOP - BOTTOM);
    let rows = series.len().div_ceil(LEGEND_COLUMNS) as f64;
    let height = HEIGHT + rows * LEGEND_ROW;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\"><title>{}</title>", escape(title));
    for i in 0..=4 {
        let value = bottom + (top - bottom) * f64::from(i) / 4.0;
        let at = y(value);
        let _ = write!(svg, "<line class=\"g\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", WIDTH - RIGHT);
        let label = tick(value, top - bottom);
        let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, at + 4.0);
        let step = left + (right - left) * f64::from(i) / 4.0;
        let value = if axes.log_x { step.exp() } else { step };
        let place = LEFT + (step - left) / (right - left) * (WIDTH - LEFT - RIGHT);
        let anchor = if i == 4 { "end" } else { "middle" };
        let label = tick(value, if axes.log_x { value } else { right - left });
        let _ = write!(svg, "<text x=\"{place:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>", HEIGHT - 26.0);
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    let _ = write!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 8.0, escape(axes.x));
    let _ = write!(svg, "<text x=\"4\" y=\"12\">{}</text>", escape(axes.y));
    for (i, line) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let dash = DASHES[i / COLOURS.len() % DASHES.len()];
        let points: Vec<String> = line
            .points
            .iter()
            .filter(|p| along(p.0).is_finite() && p.1.is_finite())
            .map(|p| format!("{:.1} {:.1}", x(p.0), y(p.1)))
            .collect();
        for ((at, _), (low, high)) in line.points.iter().zip(&line.intervals).filter(|(_, i)| i.0.is_finite()) {
            let (at, low, high) = (x(*at), y(*low), y(*high));
            let _ = write!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\" stroke=\"{colour}\" opacity=\".5\"/>"
            );
        }
        if !points.is_empty() {
            let _ = write!(svg, "<path stroke=\"{colour}\" stroke-dasharray=\"{dash}\" d=\"M{}\"/>", points.join("L"));
        }
        if points.len() <= 16 {
            for point in &points {
                let (px, py) = point.split_once(' ').unwrap_or((point, "0"));
                let _ = write!(svg, "<circle cx=\"{px}\" cy=\"{py}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
        let column = (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS as f64;
        let at = (LEFT + (i % LEGEND_COLUMNS) as f64 * column, HEIGHT + 8.0 + (i / LEGEND_COLUMNS) as f64 * LEGEND_ROW);
        let _ = write!(
            svg,
            "<path stroke=\"{colour}\" stroke-dasharray=\"{dash}\" d=\"M{:.1} {:.1}h20\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            at.0,
            at.1 - 4.0,
            at.0 + 25.0,
            at.1,
            escape(&line.label)
        );
    }
    svg + "</svg>"
}

/// The range of values, widened so that it is never empty.
fn span(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    match (low.is_finite(), high > low) {
        (false, _) => (0.0, 1.0),
        (true, false) => (low - 0.5, high + 0.5),
        (true, true) => (low, high),
    }
}

/// A label with as many decimals as a range of this size needs.
fn tick(value: f64, range: f64) -> String {
    match range.abs() {
        r if r >= 20.0 => format!("{value:.0}"),
        r if r >= 2.0 => format!("{value:.1}"),
        r if r >= 0.2 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXES: Axes = Axes { x: "step", y: "loss", log_x: false };

    #[test]
    fn markup_in_texts_stays_text() {
        let mut page = Page::new("<script>\"&", "<p>");
        page.table(&[Column::Text("<b>")], &[vec!["<i>".into()]]);
        assert!(!page.html.contains("<script>") && !page.html.contains("<b>") && !page.html.contains("<i>"));
    }

    #[test]
    fn charts_of_little_or_strange_data_are_well_formed() {
        let log = Axes { log_x: true, ..AXES };
        for (axes, points) in [
            (&AXES, vec![]),
            (&AXES, vec![(1.0, 0.0)]),
            (&AXES, vec![(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 3.0)]),
            (&log, vec![(0.0, 1.0), (1.0, 1.0), (10.0, 2.0)]),
        ] {
            let svg = chart("t", axes, &[Series::line("a", points)]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn intervals_are_shown_where_there_are_any() {
        assert_eq!(show(Interval { mean: 1.0, low: 0.5, high: 1.5 }, 1), "1.0 [0.5, 1.5]");
        assert_eq!(show(Interval { mean: 1.0, low: f64::NEG_INFINITY, high: f64::INFINITY }, 1), "1.0");
    }
}

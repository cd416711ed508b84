//! Reports as single HTML files without scripts or links: text, tables, and charts as inline SVG.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use rpo::statistics::Interval;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;\
color:#1c2330;background:#fff}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}.t{overflow-x:auto}\
table{border-collapse:collapse;width:100%;font-size:.9rem}th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #8884;\
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
    /// Whether `y` is logarithmic.
    pub log_y: bool,
}

impl Axes {
    /// Linear axes.
    pub fn linear(x: &'static str, y: &'static str) -> Self {
        Self { x, y, log_x: false, log_y: false }
    }
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
    /// A page with a title and, unless it is empty, a paragraph.
    pub fn new(title: &str, introduction: &str) -> Self {
        let title = escape(title);
        let html = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        );
        let mut page = Self { html };
        if !introduction.is_empty() {
            page.paragraph(introduction);
        }
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

/// From values to places along an axis, and which values to name.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    /// Holds all `values` that can be shown.
    fn over(values: impl Iterator<Item = f64>, logarithmic: bool) -> Self {
        let shown = values.filter(|v| v.is_finite() && (!logarithmic || *v > 0.0));
        let (low, high) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = match (low.is_finite(), high > low, logarithmic) {
            (true, true, _) => (low, high),
            (true, false, true) => (low / 2.0, high * 2.0),
            (true, false, false) => (low - 0.5, high + 0.5),
            (false, ..) => (1.0, 2.0),
        };
        Self { low, high, logarithmic }
    }

    /// 0 at the low end, 1 at the high one; not finite for what cannot be shown.
    fn share(&self, value: f64) -> f64 {
        match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// Round values: multiples of 1, 2 or 5 times a power of ten.
    fn ticks(&self) -> Vec<f64> {
        let inside = |v: &f64| (-1e-9..=1.0 + 1e-9).contains(&self.share(*v));
        if self.logarithmic {
            let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
            let fine: Vec<f64> =
                (first..=last).flat_map(|e| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(e))).filter(inside).collect();
            let coarse: Vec<f64> = (first..=last).map(|e| 10f64.powi(e)).filter(inside).collect();
            return if fine.len() <= 7 { fine } else { coarse };
        }
        let rough = (self.high - self.low) / 5.0;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * unit).into_iter().find(|s| *s >= rough).unwrap_or(rough);
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

fn chart(title: &str, axes: &Axes, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|s| &s.points);
    let ends = series.iter().flat_map(|s| &s.intervals).flat_map(|i| [i.0, i.1]);
    let across = Scale::over(points().map(|p| p.0), axes.log_x);
    let up = Scale::over(points().map(|p| p.1).chain(ends), axes.log_y);
    let x = |v: f64| LEFT + across.share(v) * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| TOP + (1.0 - up.share(v)) * (HEIGHT - TOP - BOTTOM);
    let rows = series.len().div_ceil(LEGEND_COLUMNS) as f64;
    let height = HEIGHT + rows * LEGEND_ROW;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\"><title>{}</title>", escape(title));
    for value in up.ticks() {
        let at = y(value);
        let _ = write!(svg, "<line class=\"g\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", WIDTH - RIGHT);
        let label = tick(value);
        let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, at + 4.0);
    }
    for value in across.ticks() {
        let (at, label) = (x(value), tick(value));
        let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", HEIGHT - 26.0);
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
            .map(|p| (x(p.0), y(p.1)))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .map(|(x, y)| format!("{x:.1} {y:.1}"))
            .collect();
        for ((at, _), (low, high)) in line.points.iter().zip(&line.intervals) {
            let (at, low, high) = (x(*at), y(*low), y(*high));
            if !(at.is_finite() && low.is_finite() && high.is_finite()) {
                continue;
            }
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

/// A tick's label, without the noise of binary fractions.
fn tick(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".into() } else { text.into() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_texts_stays_text() {
        let mut page = Page::new("<script>\"&", "<p>");
        page.table(&[Column::Text("<b>")], &[vec!["<i>".into()]]);
        assert!(!page.html.contains("<script>") && !page.html.contains("<b>") && !page.html.contains("<i>"));
    }

    #[test]
    fn charts_of_little_or_strange_data_are_well_formed() {
        let linear = Axes::linear("step", "loss");
        let log = Axes { x: "step", y: "loss", log_x: true, log_y: true };
        for (axes, points) in [
            (&linear, vec![]),
            (&linear, vec![(1.0, 0.0)]),
            (&linear, vec![(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 3.0)]),
            (&log, vec![(0.0, 1.0), (1.0, -1.0), (10.0, 2.0), (20.0, 2.0)]),
        ] {
            let svg = chart("t", axes, &[Series::line("a", points)]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn ticks_are_round() {
        let ticks = |values: &[f64], log| -> Vec<String> {
            Scale::over(values.iter().copied(), log).ticks().into_iter().map(tick).collect()
        };
        assert_eq!(ticks(&[0.03, 1.57], false), ["0.5", "1", "1.5"]);
        assert_eq!(ticks(&[-3.0, 7.0], false), ["-2", "0", "2", "4", "6"]);
        assert_eq!(ticks(&[0.1, 5.0], true), ["0.1", "0.2", "0.5", "1", "2", "5"]);
        assert_eq!(ticks(&[0.01, 1000.0], true), ["0.01", "0.1", "1", "10", "100", "1000"]);
    }

    #[test]
    fn intervals_are_shown_where_there_are_any() {
        assert_eq!(show(Interval { mean: 1.0, low: 0.5, high: 1.5 }, 1), "1.0 [0.5, 1.5]");
        assert_eq!(show(Interval { mean: 1.0, low: f64::NEG_INFINITY, high: f64::INFINITY }, 1), "1.0");
    }
}

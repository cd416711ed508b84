//! Bars with 95 % intervals as inline SVG.

use std::fmt::Write;

use rpo::statistics::Interval;

use super::chart::colour;
use super::html::{Figure, escape};
use super::scale::{Axis, Scale, Spacing};

/// A bar for each contestant. On an even axis bars begin at 0; on a logarithmic one, which has no 0, there are dots.
pub struct Bars<'a> {
    /// Heads the figure.
    pub title: &'a str,
    /// What is shown, in words.
    pub note: String,
    /// What values mean.
    pub axis: Axis,
    /// From above.
    pub rows: Vec<Bar>,
    /// Values to compare with, each with its name.
    pub marks: Vec<(f64, &'static str)>,
    /// Values that are always within the axis, such as the ends of a share.
    pub within: &'a [f64],
}

/// What is known of a contestant.
pub struct Bar {
    /// Its name.
    pub label: String,
    /// Its estimate, if there is one; an end that is not finite is not drawn.
    pub interval: Option<Interval>,
    /// The estimate in words.
    pub words: String,
    /// Number of its colour, the same as in charts; none for what is no contestant.
    pub colour: Option<usize>,
}

const WIDTH: f64 = 380.0;
const LEFT: f64 = 4.0;
const RIGHT: f64 = 12.0;
/// How far texts keep from marks at either end.
const INSIDE: f64 = 9.0;
const FONT: f64 = 12.5;
/// A row is a line of text with a bar below.
const ROW: f64 = 36.0;

impl Bars<'_> {
    /// As one of several figures side by side.
    pub fn figure(&self) -> Figure {
        let (title, note) = (escape(self.title), escape(&self.note));
        Figure(format!("<figure><figcaption><b>{title}</b>{note}</figcaption>{}</figure>", self.svg()))
    }

    fn scale(&self) -> Scale {
        let ends = self.rows.iter().filter_map(|row| row.interval).flat_map(|i| [i.mean, i.low, i.high]);
        let from = (self.axis.spacing != Spacing::Logarithmic).then_some(0.0);
        let marks = self.marks.iter().map(|(value, _)| *value);
        Scale::over(ends.chain(marks).chain(self.within.iter().copied()).chain(from), self.axis.spacing)
    }

    fn svg(&self) -> String {
        let scale = self.scale();
        let x = |v: f64| LEFT + scale.share(v) * (WIDTH - LEFT - RIGHT);
        let names: Vec<(f64, &str)> = self.marks.iter().map(|(value, name)| (x(*value), *name)).collect();
        let lines = lines(&names);
        let top = 6.0 + 16.0 * lines.iter().max().map_or(0.0, |last| (last + 1) as f64);
        let bottom = top + ROW * self.rows.len() as f64 + 6.0;
        let height = bottom + 2.9 * FONT;
        let words: Vec<String> = self.rows.iter().map(|row| format!("{} {}", row.label, row.words)).collect();
        let mut svg = format!(
            "<svg class=\"narrow\" viewBox=\"0 0 {WIDTH} {height:.1}\" font-size=\"{FONT}\" role=\"img\" aria-label=\"{}\">",
            escape(&format!("{}: {}", self.title, words.join("; ")))
        );
        for (value, name) in scale.ticks(6) {
            let (at, y) = (x(value), bottom + FONT + 1.0);
            let anchor = anchor(at);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {top:.1}V{bottom:.1}\"/>");
            let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{name}</text>");
        }
        let (end, y) = (WIDTH - RIGHT, height - 0.3 * FONT);
        let logarithmic = if scale.is_logarithmic() { " (logarithmic)" } else { "" };
        let name = escape(self.axis.label);
        let _ =
            write!(svg, "<text class=\"name\" x=\"{end}\" y=\"{y:.1}\" text-anchor=\"end\">{name}{logarithmic}</text>");
        for (i, row) in self.rows.iter().enumerate() {
            svg += &bar(row, top + ROW * i as f64, &scale, x);
        }
        for ((at, name), line) in names.into_iter().zip(lines) {
            let y = 12.0 + 16.0 * line as f64;
            if at.is_finite() {
                let _ = write!(svg, "<path class=\"mark\" d=\"M{at:.1} {:.1}V{bottom:.1}\"/>", y + 3.0);
                let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"{}\">{name}</text>", anchor(at));
            }
        }
        // Above the marks, whose lines would cross them.
        for (i, row) in self.rows.iter().enumerate() {
            let (y, label, words) = (top + ROW * i as f64 + FONT + 1.0, escape(&row.label), escape(&row.words));
            let _ = write!(svg, "<text x=\"{INSIDE}\" y=\"{y:.1}\" font-weight=\"600\">{label}</text>");
            let x = WIDTH - RIGHT - INSIDE;
            let _ = write!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{words}</text>");
        }
        svg + "</svg>"
    }
}

/// On which line above the bars each mark's name stands: the first on which it meets no other.
fn lines(names: &[(f64, &str)]) -> Vec<usize> {
    let extent = |&(x, name): &(f64, &str)| {
        let width = 0.6 * FONT * name.chars().count() as f64;
        let left = match anchor(x) {
            "start" => x,
            "end" => x - width,
            _ => x - width / 2.0,
        };
        (left, left + width)
    };
    let mut placed: Vec<(usize, (f64, f64))> = Vec::new();
    for name in names {
        let (left, right) = extent(name);
        let free = |line: &usize| placed.iter().all(|(other, (l, r))| other != line || right < *l || *r < left);
        let line = (0..names.len()).find(free).unwrap_or_default();
        placed.push((line, (left, right)));
    }
    placed.into_iter().map(|(line, _)| line).collect()
}

/// Keeps a text at `x` within the drawing.
fn anchor(x: f64) -> &'static str {
    match x {
        _ if x < 0.12 * WIDTH => "start",
        _ if x > 0.88 * WIDTH => "end",
        _ => "middle",
    }
}

/// The bar of a row, without its texts.
fn bar(row: &Bar, top: f64, scale: &Scale, x: impl Fn(f64) -> f64) -> String {
    let class = row.colour.map_or_else(|| "plain".into(), |number| colour(Some(number)));
    let mut svg = format!("<g class=\"{class}\">");
    let middle = top + 24.0;
    let Some(Interval { mean, low, high }) = row.interval else { return svg + "</g>" };
    let at = x(mean);
    if !scale.is_logarithmic() && at.is_finite() {
        let (from, width) = (x(0.0).min(at), (x(0.0) - at).abs());
        let (y, height) = (middle - 5.0, 10.0);
        let _ =
            write!(svg, "<rect class=\"bar\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\"/>");
    } else if at.is_finite() {
        let _ = write!(svg, "<circle class=\"dot\" cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"4.5\"/>");
    }
    let (low, high) = (x(low), x(high));
    if low.is_finite() && high.is_finite() {
        let (up, down) = (middle - 4.0, middle + 4.0);
        let _ = write!(
            svg,
            "<path class=\"whisker\" d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {up:.1}V{down:.1}M{high:.1} {up:.1}V{down:.1}\"/>"
        );
    }
    svg + "</g>"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(axis: Axis, intervals: &[(f64, f64, f64)]) -> Bars<'static> {
        let row = |&(mean, low, high): &(f64, f64, f64)| Bar {
            label: "<b>".into(),
            interval: Some(Interval { mean, low, high }),
            words: format!("{mean}"),
            colour: Some(0),
        };
        Bars {
            title: "t",
            note: String::new(),
            axis,
            rows: intervals.iter().map(row).collect(),
            marks: vec![],
            within: &[],
        }
    }

    /// The numbers of an attribute.
    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let values = svg.split("<rect").skip(1).filter_map(|rect| rect.split(attribute).nth(1)?.split('"').next());
        values.map(|value| value.parse().expect("a number")).collect()
    }

    #[test]
    fn bars_begin_at_zero_on_either_side() {
        // The axis is -1 to 3, 364 wide from 4 on: 91 for each unit, zero at 95.
        let svg = bars(Axis::even("reward"), &[(2.0, 1.0, 3.0), (-1.0, -1.0, -1.0)]).svg();
        assert_eq!((numbers(&svg, " x=\""), numbers(&svg, " width=\"")), (vec![95.0, 4.0], vec![182.0, 91.0]));
        // The first whisker from 1 to 3.
        assert!(svg.contains("d=\"M186.0 30.0H368.0M186.0"), "{svg}");
        assert!(!svg.contains("<b>") && svg.contains("&lt;b&gt;"));
    }

    #[test]
    fn names_of_marks_share_a_line_where_they_fit() {
        assert_eq!(lines(&[(100.0, "start"), (360.0, "best possible")]), [0, 0]);
        assert_eq!(lines(&[(300.0, "start"), (360.0, "best possible"), (100.0, "x")]), [0, 1, 0]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn what_is_not_known_is_not_drawn() {
        let mut single = bars(Axis::even("reward"), &[(2.0, f64::NEG_INFINITY, f64::INFINITY)]);
        single.rows.push(Bar { label: "none".into(), interval: None, words: "-".into(), colour: None });
        let svg = single.svg();
        assert!(!svg.contains("whisker") && !svg.contains("inf") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 1);
    }

    #[test]
    fn a_logarithmic_axis_has_dots() {
        let svg = bars(Axis::logarithmic("distance"), &[(1.0, 0.1, 10.0)]).svg();
        assert!(!svg.contains("<rect") && svg.contains("<circle class=\"dot\" cx=\"186.0\""), "{svg}");
    }
}

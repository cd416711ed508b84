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
    /// Whether it is struck out, as what is not to be trusted.
    pub struck: bool,
}

impl Bar {
    /// Its words, and whether to believe them.
    fn told(&self) -> String {
        if self.struck { format!("{} (not to be trusted)", self.words) } else { self.words.clone() }
    }
}

pub(super) const WIDTH: f64 = 380.0;
pub(super) const LEFT: f64 = 4.0;
pub(super) const RIGHT: f64 = 12.0;
/// How far texts keep from marks at either end.
const INSIDE: f64 = 9.0;
pub(super) const FONT: f64 = 12.5;
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
        let words: Vec<String> = self.rows.iter().map(|row| format!("{} {}", row.label, row.told())).collect();
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
            svg += &texts(&row.label, &row.words, row.struck, top + ROW * i as f64);
        }
        svg + "</svg>"
    }
}

/// The line of text of a row that begins at `top`: its label, cut where the words would meet it, and the words.
pub(super) fn texts(label: &str, words: &str, struck: bool, top: f64) -> String {
    const DOUBT: &str = "not to be trusted";
    let (y, right) = (top + FONT + 1.0, WIDTH - RIGHT - INSIDE);
    // Letters are half as broad as high, or a little more.
    let broad = |text: &str| 0.56 * FONT * text.chars().count() as f64;
    let taken = broad(words) + if struck { broad(DOUBT) + FONT } else { 0.0 };
    let room = ((right - INSIDE - taken - FONT) / (0.6 * FONT)).max(6.0) as usize;
    let shown = match label.chars().count() > room {
        true => label.chars().take(room - 1).chain(['…']).collect(),
        false => label.to_string(),
    };
    let (whole, shown, words) = (escape(label), escape(&shown), escape(words));
    let words = match struck {
        true => format!("<tspan>{DOUBT}</tspan> <tspan class=\"struck\">{words}</tspan>"),
        false => words,
    };
    format!(
        "<text x=\"{INSIDE}\" y=\"{y:.1}\" font-weight=\"600\"><title>{whole}</title>{shown}</text>\
         <text x=\"{right}\" y=\"{y:.1}\" text-anchor=\"end\">{words}</text>"
    )
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
    let class = row.colour.filter(|_| !row.struck).map_or_else(|| "plain".into(), |number| colour(Some(number)));
    let mut svg = format!("<g class=\"{class}\">");
    let middle = top + 24.0;
    let Some(Interval { mean, low, high }) = row.interval else { return svg + "</g>" };
    let at = x(mean);
    if !scale.is_logarithmic() && at.is_finite() {
        let (from, width) = (x(0.0).min(at), (x(0.0) - at).abs());
        let (y, height) = (middle - 5.0, 10.0);
        let class = if row.struck { "bar hollow" } else { "bar" };
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\"/>"
        );
        if row.struck {
            svg += &hatching(from, from + width, y, height);
        }
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

/// Lines that rise through a box.
fn hatching(left: f64, right: f64, top: f64, height: f64) -> String {
    const APART: f64 = 6.0;
    let mut path = String::new();
    let mut foot = left - height + APART;
    while foot < right {
        // Where the line enters and leaves the box; it rises as far as it goes.
        let (from, to) = (foot.max(left), (foot + height).min(right));
        let (low, high) = (top + height - (from - foot), top + height - (to - foot));
        let _ = write!(path, "M{from:.1} {low:.1}L{to:.1} {high:.1}");
        foot += APART;
    }
    format!("<path class=\"hatch\" d=\"{path}\"/>")
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
            struck: false,
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
        single.rows.push(Bar { label: "none".into(), interval: None, words: "-".into(), colour: None, struck: false });
        let svg = single.svg();
        assert!(!svg.contains("whisker") && !svg.contains("inf") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 1);
    }

    #[test]
    fn what_is_not_to_be_trusted_is_hatched_and_says_so() {
        let mut bars = bars(Axis::even("share"), &[(0.5, 0.4, 0.6), (1.0, 0.9, 1.0)]);
        bars.rows[1].struck = true;
        let svg = bars.svg();
        assert_eq!((svg.matches("class=\"hatch\"").count(), svg.matches("class=\"struck\"").count()), (1, 1), "{svg}");
        assert!(svg.contains("&lt;b&gt; 1 (not to be trusted)\"") && svg.matches("class=\"c0\"").count() == 1, "{svg}");
        // From the left edge 6 above the foot, and from the foot to the right edge.
        assert_eq!(
            hatching(0.0, 9.0, 0.0, 10.0),
            "<path class=\"hatch\" d=\"M0.0 6.0L6.0 0.0M2.0 10.0L9.0 3.0M8.0 10.0L9.0 9.0\"/>"
        );
    }

    #[test]
    fn long_labels_are_cut_where_words_begin() {
        let long = "a-very-long-name-of-a-model-in-some-directory";
        let text = texts(long, "0.52 [0.50, 0.54]", false, 0.0);
        assert!(text.contains(&format!("<title>{long}</title>")) && text.contains("…"), "{text}");
        assert!(!texts("rpo", "0.52 [0.50, 0.54]", true, 0.0).contains('…'));
    }

    #[test]
    fn a_logarithmic_axis_has_dots() {
        let svg = bars(Axis::logarithmic("distance"), &[(1.0, 0.1, 10.0)]).svg();
        assert!(!svg.contains("<rect") && svg.contains("<circle class=\"dot\" cx=\"186.0\""), "{svg}");
    }
}

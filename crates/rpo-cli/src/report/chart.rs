//! Charts of lines as inline SVG: a broad one and one for narrow places, between which the page's style chooses, so that
//! text is never scaled down to where it cannot be read.

use std::fmt::Write;

use super::html::{Figure, escape};
use super::scale::{Axis, Scale};
use super::series::{Points, thinned};

/// As many lines as people tell apart; also the number of colours.
pub const MOST_LINES: usize = 5;

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As a line, with dots where its points are few.
    Line,
    /// Thin and faint, behind a smoothed line.
    Raw,
    /// As dots.
    Dots,
    /// As a ring around what another line shows there.
    Ring,
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// Shown in the legend.
    pub label: String,
    /// A `y` that is not a number is a gap.
    pub points: Points,
    /// The ends of `y`'s interval at each point; empty for none.
    pub intervals: Vec<(f64, f64)>,
    /// How it is drawn.
    pub look: Look,
    /// Number of the colour, counting on beyond [`MOST_LINES`]; none for what is no contestant.
    pub colour: Option<usize>,
}

impl Line {
    /// A line of a contestant, without intervals.
    pub fn new(label: impl Into<String>, points: Points, colour: usize) -> Self {
        Self { label: label.into(), points, intervals: Vec::new(), look: Look::Line, colour: Some(colour) }
    }

    /// The same, drawn otherwise.
    #[must_use]
    pub fn drawn(self, look: Look) -> Self {
        Self { look, ..self }
    }
}

/// A chart of lines.
#[derive(Clone, Debug)]
pub struct Chart {
    title: String,
    note: String,
    axes: (Axis, Axis),
    scales: (Scale, Scale),
    lines: Vec<Line>,
}

/// The measures of a drawing, in units of its own; `font` is the height of its text.
struct Frame {
    class: &'static str,
    width: f64,
    height: f64,
    font: f64,
    /// Dots are drawn on lines of at most so many points.
    dots: usize,
    /// Ticks of each axis.
    ticks: (usize, usize),
    /// Points of a line beyond which it is thinned.
    points: usize,
}

/// In the narrowest place, 368 pixels of a page of 400, its text has 11.6 pixels.
const NARROW: Frame =
    Frame { class: "narrow", width: 380.0, height: 250.0, font: 12.0, dots: 16, ticks: (5, 5), points: 360 };
/// Gives way to the narrow one below 768 pixels, where its text has 11.1 pixels.
const BROAD: Frame =
    Frame { class: "broad", width: 900.0, height: 330.0, font: 13.0, dots: 24, ticks: (8, 6), points: 720 };
const RIGHT: f64 = 14.0;

impl Chart {
    /// A chart whose axes hold all that `lines` show. `note` is said below the title.
    pub fn new(title: &str, note: &str, x: Axis, y: Axis, lines: Vec<Line>) -> Self {
        let points = || lines.iter().flat_map(|line| &line.points);
        let ends = lines.iter().flat_map(|line| &line.intervals).flat_map(|i| [i.0, i.1]);
        let across = Scale::over(points().filter(|p| p.1.is_finite()).map(|p| p.0), x.spacing);
        let up = Scale::over(points().map(|p| p.1).chain(ends), y.spacing).with_margin();
        Self { title: title.into(), note: note.into(), axes: (x, y), scales: (across, up), lines }
    }

    /// Charts on the same axes with at most [`MOST_LINES`] contestants each, so that no colour stands for two; lines that are no
    /// contestant's are in all of them.
    pub fn split(self) -> Vec<Self> {
        let contestants = self.lines.iter().filter_map(|line| line.colour).max().map_or(1, |last| last + 1);
        let groups = contestants.div_ceil(MOST_LINES);
        // Neighbours, so that even where groups are smaller no two have the same colour.
        let size = contestants.div_ceil(groups);
        let of_group = |g: usize| -> Vec<Line> {
            self.lines.iter().filter(|line| line.colour.is_none_or(|colour| colour / size == g)).cloned().collect()
        };
        let parts: Vec<Vec<Line>> =
            (0..groups).map(of_group).filter(|lines| groups == 1 || lines.iter().any(|l| l.colour.is_some())).collect();
        let n = parts.len();
        let titled = |(i, lines)| {
            let title = if n > 1 { format!("{} ({} of {n})", self.title, i + 1) } else { self.title.clone() };
            Self { title, lines, ..self.clone() }
        };
        parts.into_iter().enumerate().map(titled).collect()
    }

    /// As a figure across the page.
    pub fn broad(&self) -> Figure {
        self.figure("wide", &[BROAD, NARROW])
    }

    /// As one of several figures side by side.
    pub fn small(&self) -> Figure {
        self.figure("small", &[NARROW])
    }

    fn figure(&self, class: &str, frames: &[Frame]) -> Figure {
        let mut html =
            format!("<figure class=\"{class}\"><figcaption><b>{}</b>{}", escape(&self.title), escape(&self.note));
        if let Some(warning) = self.not_shown() {
            let _ = write!(html, " {}", escape(&warning));
        }
        html += "</figcaption>";
        frames.iter().for_each(|frame| html += &self.svg(frame));
        html += "<ul class=\"legend\">";
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let _ = write!(html, "<li>{}<span>{}</span></li>", swatch(line), escape(&line.label));
        }
        Figure(html + "</ul></figure>")
    }

    /// What a logarithmic axis leaves out, in words.
    fn not_shown(&self) -> Option<String> {
        let lost = |scale: &Scale, v: f64| v.is_finite() && scale.is_logarithmic() && v <= 0.0;
        let points = self.lines.iter().flat_map(|line| &line.points);
        let n = points.filter(|p| lost(&self.scales.0, p.0) || lost(&self.scales.1, p.1)).count();
        (n > 0).then(|| format!("Not shown: {n} that a logarithmic axis has no place for, being 0 or less."))
    }

    /// The chart in words, for those who hear the page.
    fn description(&self) -> String {
        let ends = |line: &Line| {
            let mut defined = line.points.iter().filter(|p| p.1.is_finite());
            let first = defined.next()?;
            let last = defined.next_back().unwrap_or(first);
            let at = |p: &(f64, f64)| format!("{} at {}", short(p.1), short(p.0));
            Some(format!("{}: from {} to {}.", line.label, at(first), at(last)))
        };
        let lines: Vec<String> = self.lines.iter().filter_map(ends).collect();
        format!("{}: {} by {}. {}", self.title, self.axes.1.label, self.axes.0.label, lines.join(" "))
    }

    fn svg(&self, frame: &Frame) -> String {
        let Frame { class, width, height, font, .. } = *frame;
        let (across, up) = &self.scales;
        let (columns, rows) = (across.ticks(frame.ticks.0), up.ticks(frame.ticks.1));
        let longest = rows.iter().map(|(_, name)| name.chars().count()).max().unwrap_or(0) as f64;
        let left = 10.0 + 0.6 * font * longest;
        let (top, bottom) = (2.0 * font, height - 3.2 * font);
        let place = |p: (f64, f64)| {
            let (x, y) = (across.share(p.0), 1.0 - up.share(p.1));
            (left + x * (width - left - RIGHT), top + y * (bottom - top))
        };
        let mut svg = format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" font-size=\"{font}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.description())
        );
        for (value, name) in rows {
            let y = top + (1.0 - up.share(value)) * (bottom - top);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{}\"/>", width - RIGHT);
            let (x, y) = (left - 6.0, y + 0.35 * font);
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{name}</text>");
        }
        for (value, name) in columns {
            let x = left + across.share(value) * (width - left - RIGHT);
            let _ = write!(svg, "<path class=\"axis\" d=\"M{x:.1} {bottom:.1}v4\"/>");
            let y = bottom + 4.0 + font;
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{name}</text>");
        }
        let _ = write!(svg, "<path class=\"axis\" d=\"M{left:.1} {bottom:.1}H{}\"/>", width - RIGHT);
        let name = |axis: &Axis, scale: &Scale| {
            format!("{}{}", escape(axis.label), if scale.is_logarithmic() { " (logarithmic)" } else { "" })
        };
        let _ = write!(svg, "<text class=\"name\" x=\"0\" y=\"{font}\">{}</text>", name(&self.axes.1, up));
        let (x, y) = (width - RIGHT, height - 0.4 * font);
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
            name(&self.axes.0, across)
        );
        for (i, line) in self.lines.iter().enumerate() {
            // Intervals at the same place lie beside each other.
            let aside =
                if line.intervals.is_empty() { 0.0 } else { 4.0 * (i as f64 - (self.lines.len() - 1) as f64 / 2.0) };
            svg += &draw(line, frame, |p| (place(p).0 + aside, place(p).1));
        }
        svg + "</svg>"
    }
}

/// A line at its places.
fn draw(line: &Line, frame: &Frame, place: impl Fn((f64, f64)) -> (f64, f64)) -> String {
    let mut svg = format!("<g class=\"{}\">", colour(line.colour));
    let shown = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
    for ((x, _), (low, high)) in line.points.iter().zip(&line.intervals) {
        let (low, high) = (place((*x, *low)), place((*x, *high)));
        if shown(&low) && shown(&high) {
            let _ = write!(svg, "<path class=\"error\" d=\"M{:.1} {:.1}V{:.1}\"/>", low.0, low.1, high.1);
        }
    }
    if matches!(line.look, Look::Line | Look::Raw) {
        let places: Points = thinned(&line.points, frame.points).into_iter().map(&place).collect();
        let class = if line.look == Look::Raw { "raw" } else { "line" };
        for joined in places.split(|p| !shown(p)).filter(|joined| !joined.is_empty()) {
            let path: Vec<String> = joined.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            // A point between two gaps is a line of no length, which a round end would show; it is given a dot.
            match &joined {
                [(x, y)] => _ = write!(svg, "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>"),
                _ => _ = write!(svg, "<path class=\"{class}\" d=\"M{}\"/>", path.join("L")),
            }
        }
    }
    let dotted = match line.look {
        Look::Dots | Look::Ring => true,
        Look::Line => line.points.len() <= frame.dots,
        Look::Raw => false,
    };
    for point in line.points.iter().filter(|_| dotted) {
        let (x, y) = place(*point);
        if !shown(&(x, y)) {
            continue;
        }
        let (class, radius) = if line.look == Look::Ring { ("ring", 6.5) } else { ("dot", 3.0) };
        let words = format!("{}: {} at {}", line.label, short(point.1), short(point.0));
        let _ = write!(
            svg,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{}</title></circle>",
            escape(&words)
        );
    }
    svg + "</g>"
}

/// How a line looks, for the legend.
fn swatch(line: &Line) -> String {
    let inner = match line.look {
        Look::Line => "<path class=\"line\" d=\"M0 6H28\"/>",
        Look::Raw => "<path class=\"raw\" d=\"M0 8L5 3 9 9 14 4 18 8 23 3 28 7\"/>",
        Look::Dots => {
            "<circle class=\"dot\" cx=\"7\" cy=\"6\" r=\"3\"/><circle class=\"dot\" cx=\"21\" cy=\"6\" r=\"3\"/>"
        }
        Look::Ring => "<circle class=\"ring\" cx=\"14\" cy=\"6\" r=\"5\"/>",
    };
    format!("<svg viewBox=\"0 0 28 12\" aria-hidden=\"true\"><g class=\"{}\">{inner}</g></svg>", colour(line.colour))
}

/// The class of a colour.
pub fn colour(number: Option<usize>) -> String {
    number.map_or_else(|| "ink".into(), |number| format!("c{}", number % MOST_LINES))
}

/// With four digits at most.
fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value == value.trunc() && size < 1e6 => format!("{value}"),
        _ if (1e-3..1e4).contains(&size) => {
            format!("{value:.*}", 3usize.saturating_sub(size.log10().max(0.0) as usize))
        }
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(x: Axis, y: Axis, lines: Vec<Line>) -> Chart {
        Chart::new("a < b", "", x, y, lines)
    }

    #[test]
    fn charts_of_little_or_strange_data_are_well_formed() {
        let (even, log) = (Axis::even("loss"), Axis::logarithmic("loss"));
        for (x, y, points) in [
            (Axis::STEPS, even, vec![]),
            (Axis::STEPS, even, vec![(1.0, 0.0)]),
            (Axis::STEPS, even, vec![(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 3.0)]),
            (Axis::STEPS, Axis::fitting("mass"), vec![(0.0, 1.0), (1.0, 1e-300), (2.0, 0.0)]),
            (log, log, vec![(0.0, 1.0), (1.0, -1.0), (10.0, 2.0), (20.0, 2.0)]),
            (even, even, vec![(0.0, 1e300), (1.0, -1e300)]),
        ] {
            let intervals = vec![(f64::NEG_INFINITY, f64::INFINITY); points.len()];
            let Figure(html) = chart(x, y, vec![Line { intervals, ..Line::new("a", points, 0) }]).broad();
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
            assert!(html.contains("a &lt; b") && html.matches("<svg").count() == html.matches("</svg>").count());
        }
    }

    #[test]
    fn what_has_no_place_on_an_axis_is_counted_and_breaks_the_line() {
        let points = vec![(1.0, 1.0), (2.0, 2.0), (3.0, 0.0), (4.0, 1.0), (5.0, 2.0), (6.0, f64::NAN)];
        let figure = chart(Axis::STEPS, Axis::logarithmic("p"), vec![Line::new("a", points, 0)]).small();
        assert!(figure.0.contains("Not shown: 1 that a logarithmic axis"), "{}", figure.0);
        assert_eq!(figure.0.matches("class=\"line\" d=\"M").count(), 2 + 1, "two pieces, and the legend's");
    }

    #[test]
    fn a_line_begins_where_it_is_defined() {
        let late = Line::new("late", vec![(5.0, 0.5), (10.0, 0.6)], 0);
        let from_start = Line::new("loss", vec![(0.0, 0.1), (10.0, 0.9)], 1);
        let chart = chart(Axis::STEPS, Axis::even("y"), vec![late, from_start]);
        assert!(chart.description().contains("late: from 0.500 at 5 to 0.600 at 10."), "{}", chart.description());
        let svg = chart.svg(&NARROW);
        let starts: Vec<f64> = svg
            .split("class=\"line\" d=\"M")
            .skip(1)
            .map(|path| path.split(' ').next().and_then(|x| x.parse().ok()).expect("a number"))
            .collect();
        assert!(starts[0] > starts[1] + 100.0, "{starts:?}");
    }

    #[test]
    fn five_contestants_a_chart_on_the_same_axes() {
        let line = |i: usize| Line::new(format!("o{i}"), vec![(0.0, i as f64), (1.0, 1.0)], i);
        let best = Line { colour: None, ..Line::new("best possible", vec![(0.0, 50.0)], 0) };
        let parts = chart(Axis::STEPS, Axis::even("y"), (0..12).map(line).chain([best]).collect()).split();
        let sizes: Vec<usize> = parts.iter().map(|part| part.lines.len()).collect();
        assert_eq!(sizes, [5, 5, 5]);
        assert_eq!(parts[2].title, "a < b (3 of 3)");
        assert_eq!(parts[0].scales.1.share(50.0), parts[2].scales.1.share(50.0));
        let one = chart(Axis::STEPS, Axis::even("y"), vec![line(0)]).split();
        assert_eq!((one.len(), one[0].title.as_str()), (1, "a < b"));
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 12.0, 0.123_456, 1234.56, 12.3456, 1e-7, 123_456.7].map(short);
        assert_eq!(shown, ["0", "12", "0.123", "1235", "12.35", "1.00e-7", "1.23e5"]);
    }
}

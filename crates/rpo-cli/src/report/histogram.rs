//! Histograms as inline SVG: a row for each sample, all over the same bins, with the medians marked.

use std::fmt::Write;

use super::bars::{FONT, LEFT, RIGHT, WIDTH, texts};
use super::generations::class;
use super::html::{Figure, escape};
use super::scale::{Axis, Scale, Spacing};

/// How the values of a few samples lie.
pub struct Histogram<'a> {
    /// Heads the figure.
    pub title: &'a str,
    /// What is shown, in words.
    pub note: String,
    /// What values mean; of [`Spacing::Whole`] numbers each has a bar of its own where there are not too many.
    pub axis: Axis,
    /// From above.
    pub rows: Vec<Sample>,
    /// Values that are always within the axis, such as the ends of a scale of ratings.
    pub within: &'a [f64],
}

/// A sample.
pub struct Sample {
    /// Its name.
    pub label: String,
    /// What is not finite is left out, and counted.
    pub values: Vec<f64>,
    /// Number of its colour, the same as in charts; none for what is no contestant.
    pub colour: Option<usize>,
}

/// No more bins than eyes tell apart at this width.
const MOST: usize = 40;
const FEWEST: usize = 6;
/// Values beyond these shares of all values have no bins of their own where they would make all bins broad.
const TAIL: f64 = 0.005;

/// A line of text, and the room below in which bars rise.
const TEXT: f64 = 18.0;
const RISE: f64 = 38.0;
const ROW: f64 = TEXT + RISE + 8.0;

/// Bins of equal width; the first and the last also hold what lies beyond them.
#[derive(Clone, Debug, PartialEq)]
struct Bins {
    low: f64,
    width: f64,
    n: usize,
}

impl Bins {
    fn high(&self) -> f64 {
        self.low + self.width * self.n as f64
    }

    /// Where bin `i` begins.
    fn edge(&self, i: usize) -> f64 {
        self.low + self.width * i as f64
    }

    fn counts(&self, values: &[f64]) -> Vec<usize> {
        let mut counts = vec![0; self.n];
        for value in values {
            // The saturating cast keeps what lies below in the first bin. A little is added, for an edge belongs to the bin above.
            let place = ((value - self.low) / self.width + 1e-9).floor().max(0.0) as usize;
            counts[place.min(self.n - 1)] += 1;
        }
        counts
    }
}

/// Common bins of sorted samples: of the width of Freedman and Diaconis, 2 IQR / n^(1/3), the median of the samples', rounded to
/// 1, 2 or 5 times a power of ten, within limits. Whole numbers lie in the middle of bins of whole width.
fn bins(samples: &[Vec<f64>], whole: bool, within: &[f64]) -> Bins {
    let mut all: Vec<f64> = samples.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let fixed = |ends: fn(f64, f64) -> f64| within.iter().copied().reduce(ends);
    let ends = |(low, high): (f64, f64)| {
        (fixed(f64::min).map_or(low, |fixed| fixed.min(low)), fixed(f64::max).map_or(high, |fixed| fixed.max(high)))
    };
    let (mut low, mut high) = ends((all.first().copied().unwrap_or(0.0), all.last().copied().unwrap_or(1.0)));
    if whole && high - low < MOST as f64 {
        return Bins { low: low - 0.5, width: 1.0, n: (high - low) as usize + 1 };
    }
    let mut widths: Vec<f64> = samples.iter().filter_map(|values| freedman_diaconis(values)).collect();
    widths.sort_by(f64::total_cmp);
    let wanted = quantile(&widths, 0.5).unwrap_or(0.0);
    if (high - low) > wanted * MOST as f64 {
        (low, high) = ends((quantile(&all, TAIL).unwrap_or(low), quantile(&all, 1.0 - TAIL).unwrap_or(high)));
    }
    let span = if high > low { high - low } else { low.abs().max(1.0) };
    let least = (span / (MOST - 2) as f64).max(if whole { 1.0 } else { f64::MIN_POSITIVE });
    let width = rounded(wanted.clamp(span / MOST as f64, span / FEWEST as f64), least);
    let shift = if whole { 0.5 } else { 0.0 };
    let first = ((low + shift) / width + 1e-9).floor();
    let last = ((high + shift) / width - if whole { 0.0 } else { 1e-9 }).floor().max(first);
    Bins { low: first * width - shift, width, n: (last - first) as usize + 1 }
}

/// Of sorted values; none where half of them are equal.
fn freedman_diaconis(values: &[f64]) -> Option<f64> {
    let spread = quantile(values, 0.75)? - quantile(values, 0.25)?;
    (spread > 0.0).then(|| 2.0 * spread / (values.len() as f64).cbrt())
}

/// The nearest to `width`, by its ratio, of 1, 2 or 5 times a power of ten that are `least` or more.
fn rounded(width: f64, least: f64) -> f64 {
    let unit = 10f64.powf(width.max(least).log10().floor());
    let round =
        [0.5, 1.0, 2.0, 5.0, 10.0, 20.0].map(|m| m * unit).into_iter().filter(|round| *round >= least * (1.0 - 1e-9));
    let far = |round: &f64| (round / width).ln().abs();
    round.min_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or(width)
}

/// Of sorted values, between neighbours in proportion.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

impl Histogram<'_> {
    /// As one of several figures side by side.
    pub fn figure(&self) -> Figure {
        let samples: Vec<Vec<f64>> = self.rows.iter().map(Sample::sorted).collect();
        let whole = self.axis.spacing == Spacing::Whole && samples.iter().flatten().all(|v| *v == v.trunc());
        let bins = bins(&samples, whole, self.within);
        let (title, note) = (escape(self.title), escape(&format!("{}{}", self.note, self.remarks(&samples, &bins))));
        Figure(format!(
            "<figure><figcaption><b>{title}</b>{note}</figcaption>{}</figure>",
            self.svg(&samples, &bins, whole)
        ))
    }

    /// What the drawing cannot show.
    fn remarks(&self, samples: &[Vec<f64>], bins: &Bins) -> String {
        let outside = samples.iter().flatten().filter(|v| **v < bins.low || **v > bins.high()).count();
        let lost = self.rows.iter().flat_map(|row| &row.values).filter(|v| !v.is_finite()).count();
        let mut remarks = String::new();
        if outside > 0 {
            let most = samples.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
            let _ = write!(
                remarks,
                " The bars at the ends hold what lies beyond them too: {outside} of all values, up to {}.",
                short(most)
            );
        }
        if lost > 0 {
            let _ = write!(remarks, " Left out: {lost} that are no finite number.");
        }
        remarks
    }

    fn svg(&self, samples: &[Vec<f64>], bins: &Bins, whole: bool) -> String {
        let x = |v: f64| LEFT + (v - bins.low) / (bins.high() - bins.low) * (WIDTH - LEFT - RIGHT);
        let shares: Vec<Vec<f64>> = samples
            .iter()
            .map(|values| bins.counts(values).into_iter().map(|n| n as f64 / values.len().max(1) as f64).collect())
            .collect();
        let most = shares.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
        let bottom = 4.0 + ROW * self.rows.len() as f64;
        let height = bottom + 2.9 * FONT;
        let words: Vec<String> =
            self.rows.iter().zip(samples).map(|(row, values)| described(&row.label, values)).collect();
        let mut svg = format!(
            "<svg class=\"narrow\" viewBox=\"0 0 {WIDTH} {height:.1}\" font-size=\"{FONT}\" role=\"img\" aria-label=\"{}\">",
            escape(&format!("{}, {}. {}.", self.title, self.axis.label, words.join("; ")))
        );
        let spacing = if whole { Spacing::Whole } else { Spacing::Even };
        for (value, name) in Scale::over([bins.low, bins.high()], spacing).ticks(6) {
            let (at, y) = (x(value), bottom + FONT + 1.0);
            let anchor = if at > 0.95 * WIDTH {
                "end"
            } else if at < 0.05 * WIDTH {
                "start"
            } else {
                "middle"
            };
            let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} 4V{bottom:.1}\"/>");
            let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{name}</text>");
        }
        let (end, y) = (WIDTH - RIGHT, height - 0.3 * FONT);
        let label = escape(self.axis.label);
        let _ = write!(svg, "<text class=\"name\" x=\"{end}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>");
        for (i, ((row, values), shares)) in self.rows.iter().zip(samples).zip(&shares).enumerate() {
            let (top, floor) = (4.0 + ROW * i as f64, 4.0 + ROW * (i + 1) as f64 - 8.0);
            let _ = write!(svg, "<g class=\"{}\">", class(row.colour));
            for (bin, share) in shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
                let (from, to) = (x(bins.edge(bin)), x(bins.edge(bin + 1)));
                // What is there is seen, however little it is.
                let rise = (share / most * RISE).max(0.8);
                let (y, width) = (floor - rise, (to - from - 1.0).max(0.5));
                let name = escape(&format!("{}: {:.1} % ({})", name_of(bins, bin, whole), 100.0 * share, row.label));
                let _ = write!(
                    svg,
                    "<rect class=\"bar\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{rise:.1}\"><title>{name}</title></rect>"
                );
            }
            let _ = write!(svg, "<path class=\"axis\" d=\"M{LEFT} {floor:.1}H{end}\"/></g>");
            let words = match quantile(values, 0.5) {
                Some(median) => {
                    let at = x(median.clamp(bins.low, bins.high()));
                    let _ = write!(svg, "<path class=\"median\" d=\"M{at:.1} {:.1}V{:.1}\"/>", top + TEXT, floor + 4.0);
                    format!("median {}, n={}", short(median), values.len())
                }
                None => "no values".into(),
            };
            svg += &texts(&row.label, &words, false, top);
        }
        svg + "</svg>"
    }
}

impl Sample {
    fn sorted(&self) -> Vec<f64> {
        let mut finite: Vec<f64> = self.values.iter().copied().filter(|v| v.is_finite()).collect();
        finite.sort_by(f64::total_cmp);
        finite
    }
}

/// A sorted sample in words.
fn described(label: &str, values: &[f64]) -> String {
    let at = |share| quantile(values, share).map_or_else(String::new, short);
    match values.len() {
        0 => format!("{label}: no values"),
        n => {
            format!(
                "{label}: {n} values from {} to {}, median {}, the middle half from {} to {}",
                at(0.0),
                at(1.0),
                at(0.5),
                at(0.25),
                at(0.75)
            )
        }
    }
}

/// What values bin `i` holds.
fn name_of(bins: &Bins, i: usize, whole: bool) -> String {
    let (from, to) = (bins.edge(i), bins.edge(i + 1));
    match whole {
        true if bins.width == 1.0 => short(from + 0.5),
        true => format!("{} to {}", short(from + 0.5), short(to - 0.5)),
        false => format!("{} to {}", short(from), short(to)),
    }
}

/// With four digits at most, and no noise of binary fractions.
fn short(value: f64) -> String {
    let digits = (3 - value.abs().max(1e-12).log10().floor() as i32).clamp(0, 4) as usize;
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn ratings_have_a_bar_each() {
        let found = bins(&[vec![3.0, 4.0, 9.0], vec![2.0]], true, &[1.0, 10.0]);
        assert_eq!(found, Bins { low: 0.5, width: 1.0, n: 10 });
        assert_eq!(found.counts(&[1.0, 1.0, 10.0, 5.0]), [2, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn the_rule_of_freedman_and_diaconis_rounded() {
        // 1001 values, even from 0 to 1: IQR 0.5, width 1 / 1001^(1/3) = 0.09997, rounded up to 0.1.
        let even = sorted((0..=1000).map(|i| f64::from(i) / 1000.0));
        let found = bins(&[even], false, &[]);
        assert!((found.width - 0.1).abs() < 1e-12 && found.n == 10 && found.low == 0.0, "{found:?}");
        assert_eq!(found.counts(&[0.0, 0.1, 0.3, 0.999, 1.0]), [1, 1, 0, 1, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn widths_are_round_and_not_too_small() {
        let cases = [(0.203, 0.0), (160.0, 0.0), (700.0, 0.0), (0.3, 1.0), (20.5, 20.4), (3e-5, 0.0)];
        let found = cases.map(|(width, least)| rounded(width, least));
        let expected = [0.2, 200.0, 500.0, 1.0, 50.0, 2e-5];
        assert!(found.iter().zip(expected).all(|(found, round)| (found / round - 1.0).abs() < 1e-9), "{found:?}");
    }

    #[test]
    fn whole_numbers_lie_in_bins_of_whole_width() {
        // IQR 500, width 1000 / 10 = 100: 0 to 99, 100 to 199, and so on.
        let lengths = sorted((0..1000).map(f64::from));
        let found = bins(std::slice::from_ref(&lengths), true, &[]);
        assert_eq!(found, Bins { low: -0.5, width: 100.0, n: 10 });
        assert!(found.counts(&lengths).iter().all(|n| *n == 100));
        assert_eq!(name_of(&found, 1, true), "100 to 199");
    }

    #[test]
    fn a_few_far_values_do_not_make_all_bars_broad() {
        let mut values: Vec<f64> = (0..1000).map(|i| f64::from(i % 100)).collect();
        values.push(1e6);
        let samples = [sorted(values)];
        let found = bins(&samples, true, &[]);
        assert!(found.n <= MOST && found.width <= 20.0, "{found:?}");
        assert_eq!(found.counts(&samples[0]).iter().sum::<usize>(), 1001);
        let rows = vec![Sample { label: "a".into(), values: samples[0].clone(), colour: None }];
        let histogram =
            Histogram { title: "t", note: String::new(), axis: Axis::whole("characters"), rows, within: &[] };
        assert!(histogram.figure().0.contains("1 of all values, up to 1000000."), "{}", histogram.figure().0);
    }

    #[test]
    fn little_and_strange_data_are_well_formed() {
        for values in [
            vec![],
            vec![0.0],
            vec![5.0; 50],
            vec![f64::NAN, f64::INFINITY, 1.0],
            vec![-1e300, 1e300],
            vec![1e-300, 2e-300],
            vec![-0.0, 0.0],
        ] {
            for axis in [Axis::even("reward"), Axis::whole("characters")] {
                let samples = vec![
                    Sample { label: "a < b".into(), values: values.clone(), colour: Some(7) },
                    Sample { label: "c".into(), values: vec![], colour: None },
                ];
                let n = values.iter().filter(|v| v.is_finite()).count();
                let histogram = Histogram { title: "t", note: String::new(), axis, rows: samples, within: &[] };
                let Figure(html) = histogram.figure();
                assert!(!html.contains("NaN") && !html.contains("inf"), "{values:?} {html}");
                assert!(html.contains("a &lt; b") && html.contains("c: no values"), "{html}");
                assert_eq!(html.matches("class=\"median\"").count(), usize::from(n > 0), "{html}");
                assert!(html.contains("<rect") == (n > 0), "{html}");
            }
        }
    }

    #[test]
    fn bars_of_all_samples_share_bins_and_height() {
        let sample = |values: &[f64]| Sample { label: "m".into(), values: values.to_vec(), colour: Some(0) };
        let rows = vec![sample(&[1.0, 1.0, 2.0, 2.0]), sample(&[1.0, 2.0, 2.0, 2.0])];
        let Figure(html) =
            Histogram { title: "t", note: String::new(), axis: Axis::whole("rating"), rows, within: &[] }.figure();
        let of = |attribute: &str| -> Vec<f64> {
            let rects = html.split("<rect").skip(1).filter_map(|rect| rect.split(attribute).nth(1)?.split('"').next());
            rects.map(|value| value.parse().expect("a number")).collect()
        };
        // 38 for three of four; two bins of 182.
        assert_eq!(of(" height=\""), [25.3, 25.3, 12.7, 38.0]);
        assert_eq!(of(" x=\""), [4.0, 186.0, 4.0, 186.0]);
        assert!(html.contains("m: 4 values from 1 to 2, median 1.5, the middle half from 1 to 2"), "{html}");
    }
}

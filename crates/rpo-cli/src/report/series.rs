//! From the record of a run to what a chart shows of it: pure functions of points `(x, y)` in which a `y` that is not a number
//! stands for a gap.

use std::path::Path;

use anyhow::Result;
use rpo::store::text_of;
use serde_json::Value as Json;

/// Points in the order in which they are joined.
pub type Points = Vec<(f64, f64)>;

/// The lines of a `metrics.jsonl`.
pub struct Record(Vec<Json>);

impl Record {
    /// Reads a run's record; the last line may be torn, if the run was killed.
    pub fn read(path: &Path) -> Result<Self> {
        let text = text_of(path)?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// `(step, value)` of a field of the lines of this split, from its first defined value on: what is not defined at the
    /// start, such as a rank correlation with it, has no point there.
    pub fn series(&self, split: &str, field: &str) -> Points {
        let lines = self.0.iter().filter(|line| line["split"] == split);
        let points = lines.filter_map(|line| Some((line["step"].as_f64()?, line[field].as_f64().unwrap_or(f64::NAN))));
        from_first_defined(points.collect())
    }
}

/// Without the gap before the first defined value.
pub fn from_first_defined(points: Points) -> Points {
    points.into_iter().skip_while(|(_, y)| !y.is_finite()).collect()
}

/// Over how many points a mean is taken that smooths `n` of them: a twentieth, odd; `None` where they are too few.
pub fn window(n: usize) -> Option<usize> {
    (n >= 10).then_some((n / 20) | 1).map(|window| window.max(3))
}

/// The mean of the `window` points around each. Near the ends it is taken over fewer, equally many on both sides, so that a
/// trend is not bent; where less than half of the window fits there is no mean, which would be mostly noise.
pub fn smoothed(points: &[(f64, f64)], window: usize) -> Points {
    let half = window / 2;
    let around = |i: usize| {
        let fits = half.min(i).min(points.len() - 1 - i);
        let defined: Vec<f64> = points[i - fits..=i + fits].iter().map(|p| p.1).filter(|y| y.is_finite()).collect();
        let mean = rpo::statistics::mean(&defined).unwrap_or(f64::NAN);
        (2 * fits >= half).then_some((points[i].0, mean))
    };
    (0..points.len()).filter_map(around).collect()
}

/// About `most` points that look the same when drawn: of each run of neighbours the lowest and the highest.
pub fn thinned(points: &[(f64, f64)], most: usize) -> Points {
    if points.len() <= most {
        return points.to_vec();
    }
    let together = (2 * points.len()).div_ceil(most);
    let ends = |run: &[(f64, f64)]| {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let defined = || run.iter().filter(|p| p.1.is_finite());
        let mut ends: Points = defined().min_by(by).into_iter().chain(defined().max_by(by)).copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        if ends.is_empty() { vec![run[0]] } else { ends }
    };
    points.chunks(together).flat_map(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_begins_at_its_first_defined_value() {
        let record = Record::parse(
            "{\"split\":\"validation\",\"step\":0,\"loss\":2.0}\n{\"split\":\"train\",\"step\":1,\"loss\":1.0}\n\
             {\"split\":\"validation\",\"step\":5,\"loss\":null,\"tau_b\":0.25}\n\
             {\"split\":\"validation\",\"step\":10,\"loss\":1.5,\"tau_b\":0.5}\n{\"split\":\"valid",
        );
        assert_eq!(record.series("validation", "tau_b"), [(5.0, 0.25), (10.0, 0.5)]);
        assert_eq!(record.series("train", "loss"), [(1.0, 1.0)]);
        let loss = record.series("validation", "loss");
        assert!(loss[0] == (0.0, 2.0) && loss[1].1.is_nan() && loss[2] == (10.0, 1.5), "{loss:?}");
        assert!(record.series("train", "tau_b").is_empty());
    }

    #[test]
    fn smoothing_by_hand() {
        let points = [(1.0, 4.0), (2.0, 1.0), (3.0, 1.0), (4.0, 7.0), (5.0, 0.0)];
        assert_eq!(smoothed(&points, 3), [(2.0, 2.0), (3.0, 3.0), (4.0, 8.0 / 3.0)]);
        // Five fit in the middle only: (4 + 1 + 1 + 7 + 0) / 5; three beside it.
        assert_eq!(smoothed(&points, 5), [(2.0, 2.0), (3.0, 2.6), (4.0, 8.0 / 3.0)]);
        assert_eq!(smoothed(&[(1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0)], 3), [(2.0, 3.0)]);
        assert!(smoothed(&[], 3).is_empty());
        assert_eq!([9, 10, 60, 100, 654].map(window), [None, Some(3), Some(3), Some(5), Some(33)]);
    }

    #[test]
    fn a_trend_stays_straight_to_its_ends() {
        let line: Points = (0..50).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        assert_eq!(smoothed(&line, 9), line[2..48]);
    }

    #[test]
    fn thinning_keeps_peaks() {
        let mut points: Points = (0..10_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        points[4321].1 = 99.0;
        points[8765].1 = -5.0;
        points[17].1 = f64::NAN;
        let few = thinned(&points, 600);
        assert!(few.len() <= 600 && few.contains(&(4321.0, 99.0)) && few.contains(&(8765.0, -5.0)), "{}", few.len());
        assert!(few.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(thinned(&points[100..200], 100), points[100..200]);
    }
}

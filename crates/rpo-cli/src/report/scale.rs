//! From values to places along an axis, and which values to name there. It draws nothing.

/// What an axis shows and how.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// What is measured, with its unit.
    pub label: &'static str,
    /// How values lie along it.
    pub spacing: Spacing,
}

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Evenly.
    Even,
    /// Evenly; only whole numbers are named.
    Whole,
    /// By their logarithm; what is not positive has no place.
    Logarithmic,
    /// By their logarithm if all are positive and span two powers of ten or more, else evenly.
    Fitting,
}

impl Axis {
    /// Optimizer steps.
    pub const STEPS: Self = Self { label: "optimizer step", spacing: Spacing::Whole };

    /// An axis with even spacing.
    pub fn even(label: &'static str) -> Self {
        Self { label, spacing: Spacing::Even }
    }

    /// An axis of whole numbers.
    pub fn whole(label: &'static str) -> Self {
        Self { label, spacing: Spacing::Whole }
    }

    /// An axis with logarithmic spacing.
    pub fn logarithmic(label: &'static str) -> Self {
        Self { label, spacing: Spacing::Logarithmic }
    }

    /// An axis that is logarithmic where values span decades.
    pub fn fitting(label: &'static str) -> Self {
        Self { label, spacing: Spacing::Fitting }
    }
}

/// From values to places along an axis.
#[derive(Clone, Debug)]
pub struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    whole: bool,
}

impl Scale {
    /// Holds all `values` that can be shown.
    pub fn over(values: impl IntoIterator<Item = f64>, spacing: Spacing) -> Self {
        let finite: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
        };
        let (low, high) = ends(&mut finite.iter().copied());
        let logarithmic = match spacing {
            Spacing::Logarithmic => true,
            Spacing::Fitting => low > 0.0 && high / low >= 100.0,
            Spacing::Even | Spacing::Whole => false,
        };
        let whole = spacing == Spacing::Whole;
        let (low, high) = ends(&mut finite.into_iter().filter(|v| !logarithmic || *v > 0.0));
        let (low, high) = match (low.is_finite(), high > low) {
            (true, true) => (low, high),
            (true, false) if logarithmic => (low / 2.0, high * 2.0),
            (true, false) => {
                let margin = if low == 0.0 || whole { 0.5 } else { low.abs() / 2.0 };
                (low - margin, high + margin)
            }
            (false, _) => (1.0, 2.0),
        };
        Self { low, high, logarithmic, whole }
    }

    /// With a little room at both ends, but none below 0 where nothing is below 0.
    #[must_use]
    pub fn with_margin(self) -> Self {
        const MARGIN: f64 = 0.05;
        let Self { low, high, logarithmic, .. } = self;
        if logarithmic {
            let factor = (high / low).powf(MARGIN);
            return Self { low: low / factor, high: high * factor, ..self };
        }
        let margin = (high - low) * MARGIN;
        let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
        Self { low: (low - margin).max(floor), high: high + margin, ..self }
    }

    /// Whether values lie by their logarithm.
    pub fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }

    /// 0 at the low end, 1 at the high one; not finite for what cannot be shown.
    pub fn share(&self, value: f64) -> f64 {
        match self.logarithmic {
            true if value <= 0.0 => f64::NAN,
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// Round values with their names, about as many as `most` at the most: multiples of 1, 2 or 5 times a power of ten.
    pub fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        match self.logarithmic {
            true => self.logarithmic_ticks(most),
            false => self.even_ticks(most),
        }
    }

    fn logarithmic_ticks(&self, most: usize) -> Vec<(f64, String)> {
        let inside = |v: &f64| (-1e-9..=1.0 + 1e-9).contains(&self.share(*v));
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let of = |digits: &[i32], every: usize| -> Vec<f64> {
            let powers = (first..=last).filter(|e| e.rem_euclid(every as i32) == 0);
            // Parsed, so that a power of ten is the nearest number to itself.
            powers
                .flat_map(|e| digits.iter().filter_map(move |d| format!("{d}e{e}").parse().ok()))
                .filter(inside)
                .collect()
        };
        let fine = [of(&[1, 2, 3, 5], 1), of(&[1, 2, 5], 1), of(&[1, 3], 1)];
        let coarse = (1..=1 + last.abs_diff(first) as usize)
            .map(|every| of(&[1], every))
            .find(|ticks| ticks.len() <= most.max(1));
        let chosen = fine.into_iter().find(|ticks| ticks.len() <= most).or(coarse).unwrap_or_default();
        if chosen.len() < 3 {
            return self.even_ticks(most);
        }
        chosen.into_iter().map(|value| (value, name(value, value))).collect()
    }

    fn even_ticks(&self, most: usize) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / most.max(1) as f64;
        let unit = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|m| m * unit).into_iter().find(|s| *s >= rough * (1.0 - 1e-9)).unwrap_or(rough);
        let step = if self.whole { step.max(1.0) } else { step };
        let (first, last) = ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        let of = |i| (i as f64 * step, name(i as f64 * step, step));
        (first..=last).map(of).collect()
    }
}

/// A tick's name, with as many digits as neighbours at a distance of `step` need and no noise of binary fractions.
fn name(value: f64, step: f64) -> String {
    let exponent = |v: f64| (v.abs().log10() + 1e-9).floor() as i32;
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if value == 0.0 {
        return "0".into();
    }
    if (-3..6).contains(&exponent(value)) {
        let digits = (-exponent(step)).max(0) as usize;
        return trimmed(&format!("{value:.digits$}"));
    }
    let digits = (exponent(value) - exponent(step)).max(0) as usize;
    let text = format!("{value:.digits$e}");
    let (number, power) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{}e{power}", trimmed(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(values: &[f64], spacing: Spacing, most: usize) -> Vec<String> {
        Scale::over(values.iter().copied(), spacing).ticks(most).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(names(&[0.03, 1.57], Spacing::Even, 5), ["0.5", "1", "1.5"]);
        assert_eq!(names(&[-3.0, 7.0], Spacing::Even, 5), ["-2", "0", "2", "4", "6"]);
        assert_eq!(names(&[1_000_000.0, 1_000_400.0], Spacing::Even, 2), ["1e6", "1.0002e6", "1.0004e6"]);
        assert_eq!(names(&[0.0, 2e-7], Spacing::Even, 2), ["0", "1e-7", "2e-7"]);
        assert_eq!(
            names(&[511.2, 511.25], Spacing::Even, 5),
            ["511.2", "511.21", "511.22", "511.23", "511.24", "511.25"]
        );
    }

    #[test]
    fn steps_have_whole_ticks_however_few_there_are() {
        assert_eq!(names(&[0.0, 2.0], Spacing::Whole, 8), ["0", "1", "2"]);
        assert_eq!(names(&[1.0], Spacing::Whole, 8), ["1"]);
        assert_eq!(names(&[0.0, 654.0], Spacing::Whole, 5), ["0", "200", "400", "600"]);
    }

    #[test]
    fn logarithmic_ticks_are_few_whatever_they_span() {
        assert_eq!(names(&[0.1, 5.0], Spacing::Logarithmic, 7), ["0.1", "0.2", "0.5", "1", "2", "5"]);
        assert_eq!(names(&[0.01, 1000.0], Spacing::Logarithmic, 7), ["0.01", "0.1", "1", "10", "100", "1000"]);
        assert_eq!(names(&[1e-12, 1.0], Spacing::Logarithmic, 5), ["1e-12", "1e-9", "1e-6", "0.001", "1"]);
        // Less than a decade: round values of even distance instead of none.
        assert_eq!(names(&[0.31, 0.44], Spacing::Logarithmic, 5), ["0.35", "0.4"]);
    }

    #[test]
    fn the_logarithm_serves_where_values_span_decades() {
        let logarithmic = |values: &[f64]| Scale::over(values.iter().copied(), Spacing::Fitting).is_logarithmic();
        assert!(logarithmic(&[1.0, 0.3, 0.009]) && !logarithmic(&[1.0, 0.3, 0.02]));
        assert!(!logarithmic(&[0.0, 1e9]) && !logarithmic(&[-1.0, 1e9]) && !logarithmic(&[]));
        assert!(!logarithmic(&[f64::NAN, 1.0]));
    }

    #[test]
    fn places_are_shares_of_the_axis() {
        let scale = Scale::over([1.0, 100.0], Spacing::Logarithmic);
        assert!((scale.share(10.0) - 0.5).abs() < 1e-12 && !scale.share(0.0).is_finite());
        let scale = Scale::over([0.0, 10.0], Spacing::Even).with_margin();
        assert!(scale.share(0.0) == 0.0 && (scale.share(10.5) - 1.0).abs() < 1e-12, "{scale:?}");
        let alone = Scale::over([4.0], Spacing::Even);
        assert_eq!(alone.share(4.0), 0.5);
    }
}

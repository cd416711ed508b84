//! What `rpo verify` found, and what is reported of it.

use rpo::statistics::{Interval, geometric_interval, mean_interval};

use super::problem::{BASE, Condition, objectives};
use super::{Measure, Outcome, Setting, judged};

/// All that was found.
pub struct Found<'a> {
    /// Under which it was.
    pub conditions: &'a [Condition],
    /// Problems with their starts.
    pub settings: &'a [Setting],
    /// By objective and condition.
    pub outcomes: &'a [Outcome],
}

/// What is reported of measures.
#[derive(Clone, Copy)]
pub struct Quantity {
    /// Heads its tables.
    pub title: &'static str,
    /// Explains it.
    pub note: &'static str,
    /// Behind the point.
    pub digits: usize,
    /// Reads it off.
    pub value: fn(&Measure) -> f64,
    /// Its estimate over problems.
    pub interval: fn(&[f64]) -> Interval,
}

/// Positive, and problems differ by factors.
pub const DISTANCE: Quantity = Quantity {
    title: "Distance to the optimum: KL(pi || pi*) plus surprise",
    note: "At the end of training, geometric mean in nats; less is better. Where the start is nearer, training by that \
        objective did harm.",
    digits: 2,
    value: |m| m.distance,
    interval: geometric_interval,
};
/// The share that is left for possible responses.
pub const MASS: Quantity = Quantity {
    title: "Probability of the possible responses",
    note: "At the end of training, mean. The rest goes to texts that are no response of the problem; -ln of this \
        probability is part of the distance.",
    digits: 3,
    value: |m| m.mass,
    interval: share_interval,
};
/// What the policy earns.
pub const REWARD: Quantity = Quantity {
    title: "Expected reward",
    note: "At the end of training, mean. More is not better: the optimum at tau pays for reward with nearness to the start.",
    digits: 2,
    value: |m| m.reward,
    interval: mean_interval,
};

/// No share is beyond 0 and 1, whatever Student says of a few.
fn share_interval(shares: &[f64]) -> Interval {
    let Interval { mean, low, high } = mean_interval(shares);
    Interval { mean, low: low.max(0.0), high: high.min(1.0) }
}

impl Found<'_> {
    /// The objectives that took part, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let took_part = |name: &&str| self.outcomes.iter().any(|o| o.objective == *name);
        objectives(BASE.tau).into_iter().map(|e| e.name).filter(took_part)
    }

    /// What was found of an objective under a condition.
    pub fn outcome(&self, name: &str, condition: &Condition) -> Option<&Outcome> {
        self.outcomes.iter().find(|o| o.objective == name && o.condition == condition.label)
    }

    /// A quantity at the start, over the problems of a condition.
    pub fn at_start(&self, quantity: Quantity, condition: &Condition) -> Interval {
        let measured = judged(self.settings, condition).map(|s| (quantity.value)(&s.at_start(condition.tau)));
        (quantity.interval)(&measured.collect::<Vec<f64>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_stays_a_share() {
        // Mean 0.75 with half a width of 12.7 * 0.25.
        assert_eq!(share_interval(&[0.5, 1.0]), Interval { mean: 0.75, low: 0.0, high: 1.0 });
        assert_eq!(share_interval(&[0.5, 0.5]), Interval { mean: 0.5, low: 0.5, high: 0.5 });
    }
}

//! What is tried: the conditions and the objectives, by their names. Nothing here trains or measures.

use anyhow::{Result, bail};
use rpo::evaluate::finite::{Lengths, Responses};
use rpo::objective::{
    DroConfig, GroupCentredConfig, KtoConfig, ObjectiveConfig, Partition, QrpoConfig, RpoConfig, SftConfig, SftRows,
    Transform,
};
use rpo::score::LogProb::{Mean, Sum};

/// What the objectives are given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// Heads its column.
    pub label: &'static str,
    /// Of the optimum `pi*`.
    pub tau: f64,
    /// Which responses are rated.
    pub responses: Responses,
    /// Standard deviation of what is added to each rating.
    pub noise: f64,
    /// How long the problem's responses are.
    pub lengths: Lengths,
}

/// The condition that the others vary.
pub const BASE: Condition =
    Condition { label: "4", tau: 1.0, responses: Responses::Each(4), noise: 0.0, lengths: Lengths::Equal };

/// All conditions, in the order of the report.
pub fn conditions() -> Vec<Condition> {
    let rated = |label, responses| Condition { label, responses, ..BASE };
    let at = |label, tau| Condition { label, tau, ..BASE };
    vec![
        rated("1", Responses::Each(1)),
        rated("2", Responses::Each(2)),
        BASE,
        rated("8", Responses::Each(8)),
        rated("unequal", Responses::Unequal(4)),
        rated("all", Responses::All),
        rated("uniform 1", Responses::Uniform(1)),
        rated("uniform 2", Responses::Uniform(2)),
        rated("uniform 4", Responses::Uniform(4)),
        Condition { label: "lengths", lengths: Lengths::Unequal, ..BASE },
        Condition { label: "noisy", noise: 1.0, ..BASE },
        at("tau 0.1", 0.1),
        at("tau 0.3", 0.3),
        at("tau 5", 5.0),
    ]
}

/// The conditions that share a table, by what they vary.
pub const GROUPS: [&str; 3] = [
    "by responses per prompt, tau 1",
    "responses drawn uniformly, of one to three words, or with noisy rewards",
    "other tau",
];

impl Condition {
    /// Which of [`GROUPS`] it belongs to.
    pub fn group(&self) -> &'static str {
        let other_data =
            self.noise > 0.0 || self.lengths == Lengths::Unequal || matches!(self.responses, Responses::Uniform(_));
        match (other_data, self.tau == BASE.tau) {
            (true, _) => GROUPS[1],
            (false, true) => GROUPS[0],
            (false, false) => GROUPS[2],
        }
    }
}

/// An objective that takes part.
#[derive(Clone, Debug)]
pub struct Entrant {
    /// Heads its row.
    pub name: &'static str,
    /// What it is under the condition at hand.
    pub objective: ObjectiveConfig,
    /// Where it takes part.
    pub scope: Scope,
}

/// Where an objective takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Under every condition.
    Everywhere,
    /// Where responses differ in length. Elsewhere means over tokens are sums divided by a constant, which divides `tau`.
    Lengths,
}

impl Entrant {
    /// Whether it takes part under this condition.
    pub fn takes_part(&self, condition: &Condition) -> bool {
        self.scope == Scope::Everywhere || condition.lengths == Lengths::Unequal
    }
}

/// The objectives at this temperature, on rewards as they are and, unless their name says otherwise, sums of
/// log-probabilities. With means the optimum of an objective is another one than `pi*`. `rpo published` is the same at
/// every temperature.
pub fn objectives(tau: f64) -> Vec<Entrant> {
    use Scope::{Everywhere, Lengths};
    let standardize_rewards = false;
    let rpo = |partition, log_prob| {
        ObjectiveConfig::Rpo(RpoConfig { tau, log_prob, partition, standardize_rewards, ..RpoConfig::default() })
    };
    let dro = |log_prob| ObjectiveConfig::Dro(DroConfig { tau, log_prob, standardize_rewards, ..DroConfig::default() });
    let group_centred =
        |log_prob| ObjectiveConfig::GroupCentred(GroupCentredConfig { tau, log_prob, standardize_rewards });
    let qrpo = |log_prob| {
        let transform = Transform::Normal;
        ObjectiveConfig::Qrpo(QrpoConfig { beta: tau, log_prob, transform, ..QrpoConfig::default() })
    };
    let kto = ObjectiveConfig::Kto(KtoConfig { beta: tau, log_prob: Sum, ..KtoConfig::default() });
    let entrants = [
        ("sft best", ObjectiveConfig::Sft(SftConfig { rows: SftRows::Best, log_prob: Sum }), Everywhere),
        ("rpo fitted", rpo(Partition::Fitted, Sum), Everywhere),
        ("rpo fitted (mean log-prob)", rpo(Partition::Fitted, Mean), Lengths),
        ("rpo published", ObjectiveConfig::Rpo(RpoConfig::published()), Everywhere),
        ("rpo sum", rpo(Partition::Sum, Sum), Everywhere),
        ("rpo sum (mean log-prob)", rpo(Partition::Sum, Mean), Everywhere),
        ("rpo mean", rpo(Partition::Mean, Sum), Everywhere),
        ("rpo sampled", rpo(Partition::Sampled, Sum), Everywhere),
        ("rpo sampled (mean log-prob)", rpo(Partition::Sampled, Mean), Lengths),
        ("rpo batch-mean", rpo(Partition::BatchMean, Sum), Everywhere),
        ("dro", dro(Sum), Everywhere),
        ("dro (mean log-prob)", dro(Mean), Lengths),
        ("kto", kto, Everywhere),
        ("qrpo normal", qrpo(Sum), Everywhere),
        ("qrpo normal (mean log-prob)", qrpo(Mean), Lengths),
        ("group-centred", group_centred(Sum), Everywhere),
        ("group-centred (mean log-prob)", group_centred(Mean), Lengths),
    ];
    entrants.into_iter().map(|(name, objective, scope)| Entrant { name, objective, scope }).collect()
}

/// Those of `known` whose name is `wanted`, all if none is; `flag` and `what` are for the message about an unknown one.
pub fn choose<T>(
    flag: &str,
    what: &str,
    known: Vec<T>,
    name: impl Fn(&T) -> &'static str,
    wanted: &[String],
) -> Result<Vec<T>> {
    if let Some(unknown) = wanted.iter().find(|w| known.iter().all(|k| name(k) != w.trim())) {
        let names: Vec<&str> = known.iter().map(name).collect();
        bail!("{flag}: no {what} `{}`; there are: {}", unknown.trim(), names.join(", "));
    }
    let chosen = |k: &T| wanted.is_empty() || wanted.iter().any(|w| w.trim() == name(k));
    Ok(known.into_iter().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unique(names: &[&'static str]) -> bool {
        names.iter().enumerate().all(|(i, name)| !names[..i].contains(name))
    }

    #[test]
    fn names_can_be_chosen_by() {
        let labels: Vec<_> = conditions().iter().map(|c| c.label).collect();
        let names: Vec<_> = objectives(1.0).iter().map(|e| e.name).collect();
        assert!(unique(&labels) && unique(&names));
        assert!(labels.iter().chain(&names).all(|name| !name.contains(',')), "a comma separates names");
    }

    #[test]
    fn what_is_chosen_keeps_its_order_and_what_is_unknown_is_said() {
        let chosen = |wanted: &[&str]| -> Result<Vec<&'static str>> {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            let chosen = choose("--only", "condition", conditions(), |c| c.label, &wanted)?;
            Ok(chosen.iter().map(|c| c.label).collect())
        };
        assert_eq!(chosen(&["tau 5", " 2"]).expect("known"), ["2", "tau 5"]);
        assert_eq!(chosen(&[]).expect("known").len(), conditions().len());
        let message = chosen(&["2", "3"]).expect_err("unknown").to_string();
        assert!(message.starts_with("--only: no condition `3`; there are: 1, 2, 4"), "{message}");
    }

    #[test]
    fn the_published_configuration_is_the_same_at_every_temperature() {
        let row = |tau| objectives(tau).into_iter().find(|e| e.name == "rpo published").map(|e| e.objective);
        assert_eq!(row(0.1), row(5.0));
        let Some(ObjectiveConfig::Rpo(config)) = row(1.0) else { panic!("a row of RPO") };
        let facts = (config.tau, config.log_prob, config.partition, config.standardize_rewards);
        assert_eq!(facts, (5.0, Mean, Partition::Sum, true));
    }

    #[test]
    fn means_over_tokens_take_part_where_they_are_not_sums_by_another_name() {
        let in_part = |c: &Condition| objectives(c.tau).iter().filter(|e| e.takes_part(c)).count();
        let all = objectives(1.0).len();
        let lengths = conditions().into_iter().find(|c| c.label == "lengths").expect("there");
        assert_eq!((in_part(&lengths), in_part(&BASE)), (all, all - 5));
    }
}

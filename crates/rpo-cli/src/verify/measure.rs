//! Trains one objective on one problem and measures it exactly. It knows no tables and chooses nothing.

use std::collections::BTreeMap;

use anyhow::Result;
use rpo::burn::tensor::Device;
use rpo::evaluate::finite::{FiniteProblem, Lengths, Mass, Table};
use rpo::feedback::{FeedbackSet, Split};
use rpo::model::{Init, Model, NamedParameters, RandomWeights, Weights};
use rpo::objective::{KtoConfig, ObjectiveConfig, SftConfig, Threshold};
use rpo::score::LogProb;
use rpo::train::optim::OptimizerConfig;
use rpo::train::{Event, Observer, TrainConfig, fit};
use serde::{Deserialize, Serialize};

use super::problem::Condition;

/// A policy measured exactly.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// Optimizer steps before it.
    pub step: usize,
    /// What it misses of the optimum, in nats: `kl_to_optimum + surprise`.
    ///
    /// Texts that are no response of the problem have no reward, so that a comparison with `pi*` is possible only for the
    /// policy conditioned on the valid responses: `KL(pi(.|valid) || pi*)`. To this comes what conditioning costs,
    /// `KL(pi(.|valid) || pi) = -ln pi(valid)`, or an objective that pushes probability out of the problem would look good.
    pub distance: f64,
    /// `KL(pi(.|valid) || pi*)`, mean over the prompts; `tau` times it is what the conditioned policy misses of the best
    /// value.
    pub kl_to_optimum: f64,
    /// `-ln pi(valid)`, mean over the prompts.
    pub surprise: f64,
    /// `pi(valid)`, mean over the prompts.
    pub mass: f64,
    /// `KL(pi(.|valid) || pi_ref(.|valid))`.
    pub kl_to_reference: f64,
    /// Expected reward of the conditioned policy.
    pub reward: f64,
    /// The distance to the objective's own optimum, where that is not `pi*` but is known (see [`Own`]).
    pub own: Option<f64>,
}

/// What an objective takes for best where that is another policy than `pi*`.
pub enum Own {
    /// QRPO with summed log-probabilities regresses `beta ln(pi / pi_ref)` on `f(q) - beta ln Z`, so that its residuals
    /// vanish at `pi` proportional to `pi_ref exp(f(q) / beta)`: the optimum for quantiles `f(q)` in place of rewards.
    /// `q` is taken under the reference, of which the rated responses are a sample; where they are drawn otherwise,
    /// the objective estimates another `q`.
    Policy(Table),
    /// KTO in the tabular limit, responses weighted as the reference draws them. With `w = pi / pi_ref` of a response and
    /// `c = exp(beta z_0) >= 1`, which has no gradient, its value is
    ///
    /// ```text
    /// E_ref[ lambda_D 1_D h(w) - lambda_U 1_U h(w) ],  h(w) = sigmoid(beta (ln w - z_0)) = w^beta / (w^beta + c),  E_ref[w] = 1
    /// ```
    ///
    /// `h` rises, so that undesirable responses get nothing: they cost value and the probability that desirable ones
    /// could have. For `beta <= 1`, `h` is concave in `w`; by Jensen equal ratios are best among the desirable ones,
    /// `w = 1 / pi_ref(D)`: the optimum is the reference conditioned on desirable responses. (For `beta > 1`, `h` is
    /// concave where `w^beta > c (beta - 1) / (beta + 1)`, as it is there for `c = 1`: equal ratios are a local best.)
    ///
    /// Whatever the ratios among desirable responses, which draws that are merged or missing change, the optimum lies on
    /// `D`. Reported is therefore `-ln pi(D)`, the least `KL(p || pi)` to any `p` on `D`, its own optimum included.
    Desirable {
        /// From which reward on a response is desirable; the one that the objective takes from its data.
        threshold: f64,
    },
}

/// How a run ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Run {
    /// With all its steps: the policy from start to end.
    Ended(Vec<Measure>),
    /// With a loss that was no number.
    Diverged(String),
    /// Before the first step: the objective is not defined on the data.
    Undefined(String),
}

impl Run {
    /// The policy from start to end, if it came to its end.
    pub fn path(&self) -> Option<&[Measure]> {
        match self {
            Self::Ended(path) => Some(path),
            Self::Diverged(_) | Self::Undefined(_) => None,
        }
    }

    /// The policy at the end.
    pub fn end(&self) -> Option<&Measure> {
        self.path()?.last()
    }
}

/// The weights of a model that imitates a problem's crowd, by name: what ranks tell each other of it.
#[derive(Serialize, Deserialize)]
pub struct Start(BTreeMap<String, Vec<f32>>);

impl Start {
    /// Trains it on draws of the problem that `seed` decides.
    pub fn new(lengths: Lengths, seed: u64, steps: usize) -> Result<Self> {
        let problem = FiniteProblem::new(seed, lengths);
        let device = Device::flex().autodiff();
        let fresh = Model::new(&FiniteProblem::config(), &mut RandomWeights::new(seed), &device)?;
        let data = Split { train: problem.behaviour(40, seed), ..Split::default() };
        let start =
            fit(&ObjectiveConfig::Sft(SftConfig::default()), &fresh, data, &budget(steps, 3e-3, seed), &mut [])?;
        let values = start.parameters().into_iter().map(|p| Ok((p.name, p.values.into_data().try_to_vec()?)));
        Ok(Self(values.collect::<Result<_>>()?))
    }

    fn model(&self) -> Result<Model> {
        struct Known<'a>(&'a Start);
        impl Weights for Known<'_> {
            fn get(&mut self, name: &str, _: &[usize], _: Init) -> rpo::Result<Vec<f32>> {
                let unknown = || rpo::Error::Data(format!("a start has no `{name}`"));
                self.0.0.get(name).cloned().ok_or_else(unknown)
            }
        }
        Ok(Model::new(&FiniteProblem::config(), &mut Known(self), &Device::flex().autodiff())?)
    }
}

/// A problem with the model that everything starts from.
pub struct Setting {
    /// Which responses are possible and what they are worth.
    pub problem: FiniteProblem,
    /// How long the responses are.
    pub lengths: Lengths,
    /// Decides problem, start and draws.
    pub seed: u64,
    /// The start as a table.
    pub reference: Table,
    /// What the start gives to the possible responses.
    mass: Mass,
    start: Model,
}

impl Setting {
    /// The problem of `seed` with its start.
    pub fn new(lengths: Lengths, seed: u64, start: &Start) -> Result<Self> {
        let problem = FiniteProblem::new(seed, lengths);
        let start = start.model()?;
        let (reference, mass) = problem.table(&start)?;
        Ok(Self { problem, lengths, seed, reference, mass, start })
    }

    /// The start, held to the optimum at `tau`.
    pub fn at_start(&self, tau: f64) -> Measure {
        self.measure(0, (&self.reference, self.mass), tau, None)
    }

    /// Trains by one objective; measures at the start, at the end, and every `every` steps.
    pub fn train(
        &self,
        objective: &ObjectiveConfig,
        condition: &Condition,
        steps: usize,
        rate: f64,
        every: usize,
    ) -> Result<Run> {
        let train = self.problem.feedback(&self.reference, condition.responses, condition.noise, self.seed);
        let own = self.own(objective, &train);
        let data = Split { train, ..Split::default() };
        let mut path = Path { setting: self, tau: condition.tau, own, measures: Vec::new() };
        let config = TrainConfig { validate_every: Some(every), ..budget(steps, rate, self.seed) };
        match fit(objective, &self.start, data, &config, &mut [&mut path]) {
            Ok(_) => Ok(Run::Ended(path.measures)),
            Err(problem @ rpo::Error::Step { .. }) => Ok(Run::Diverged(problem.to_string())),
            Err(problem @ rpo::Error::Data(_)) => Ok(Run::Undefined(problem.to_string())),
            Err(problem) => Err(problem.into()),
        }
    }

    /// The objective's own optimum, if it is not `pi*` and known.
    fn own(&self, objective: &ObjectiveConfig, data: &FeedbackSet) -> Option<Own> {
        match objective {
            ObjectiveConfig::Qrpo(config) if config.log_prob == LogProb::Sum => {
                let mut rewards = self.problem.quantiles(&self.reference);
                rewards.iter_mut().flatten().for_each(|q| *q = config.transform.apply(*q));
                Some(Own::Policy(self.reference.tilted(&rewards, config.beta)))
            }
            ObjectiveConfig::Kto(KtoConfig { threshold: Threshold::Mean, .. }) => {
                Some(Own::Desirable { threshold: data.reward_mean_sd().0 })
            }
            _ => None,
        }
    }

    /// Measures a policy, given as [`FiniteProblem::table`] has it.
    fn measure(&self, step: usize, (table, mass): (&Table, Mass), tau: f64, own: Option<&Own>) -> Measure {
        let kl_to_optimum = table.kl(&self.problem.optimum(&self.reference, tau));
        let own = own.and_then(|own| match own {
            Own::Policy(optimum) => Some(table.kl(optimum)),
            Own::Desirable { threshold } => self.problem.surprise_at_desirable(table, *threshold),
        });
        Measure {
            step,
            distance: kl_to_optimum + mass.surprise,
            kl_to_optimum,
            surprise: mass.surprise,
            mass: mass.mean,
            kl_to_reference: table.kl(&self.reference),
            reward: self.problem.expected_reward(table),
            own: own.map(|distance| distance + mass.surprise),
        }
    }
}

fn budget(steps: usize, learning_rate: f64, seed: u64) -> TrainConfig {
    let optimizer = OptimizerConfig { learning_rate, weight_decay: 0.0, ..OptimizerConfig::default() };
    TrainConfig { max_steps: Some(steps), batch_size: 32, seed, optimizer, ..TrainConfig::default() }
}

/// Measures the policy on its way.
struct Path<'a> {
    setting: &'a Setting,
    tau: f64,
    own: Option<Own>,
    measures: Vec<Measure>,
}

impl Observer for Path<'_> {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        if let Event::Milestone { step, policy } = event {
            let (table, mass) = self.setting.problem.table(policy)?;
            self.measures.push(self.setting.measure(*step, (&table, mass), self.tau, self.own.as_ref()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rpo::objective::{QrpoConfig, Transform};

    use super::super::problem::{BASE, objectives};
    use super::*;

    fn setting() -> Setting {
        Start::new(Lengths::Equal, 1, 2).and_then(|start| Setting::new(Lengths::Equal, 1, &start)).expect("trains")
    }

    #[test]
    fn a_run_is_measured_from_start_to_end() {
        let setting = setting();
        let start = setting.at_start(1.0);
        assert_eq!(start.kl_to_reference, 0.0);
        assert!(start.mass < 1.0 && start.surprise > 0.0 && start.own.is_none());
        assert_eq!(start.distance, start.kl_to_optimum + start.surprise);
        // -ln is convex: the mean of the surprises is at least the surprise of the mean.
        assert!(start.surprise >= -start.mass.ln() - 1e-9);
        for (name, known) in [("qrpo normal", true), ("kto", true), ("dro", false)] {
            let entrant = objectives(1.0).into_iter().find(|e| e.name == name).expect("takes part");
            let run = setting.train(&entrant.objective, &BASE, 3, 1e-3, 2).expect("trains");
            let path = run.path().expect("defined");
            assert_eq!(path.iter().map(|m| m.step).collect::<Vec<_>>(), [0, 2, 3]);
            assert_eq!((path[0].distance, path[0].own.is_some()), (start.distance, known), "{name}");
        }
        let group_centred = objectives(1.0).into_iter().find(|e| e.name == "group-centred").expect("takes part");
        let single = Condition { responses: rpo::evaluate::finite::Responses::Each(1), ..BASE };
        let run = setting.train(&group_centred.objective, &single, 3, 1e-3, 2).expect("no failure");
        assert!(matches!(run, Run::Undefined(_)), "{run:?}");
    }

    #[test]
    fn qrpo_is_held_to_the_reference_tilted_by_its_quantiles() {
        let setting = setting();
        let config = QrpoConfig { beta: 0.5, transform: Transform::Identity, ..QrpoConfig::default() };
        let data = FeedbackSet::default();
        let Some(Own::Policy(best)) = setting.own(&ObjectiveConfig::Qrpo(config.clone()), &data) else {
            panic!("it is known")
        };
        // At the optimum ln(pi / pi_ref) = (q - beta ln Z) / beta for every response: tilting back by q is the reference.
        let back = best.tilted(&setting.problem.quantiles(&setting.reference), -0.5);
        assert!(back.kl(&setting.reference).abs() < 1e-12 && best.kl(&setting.reference) > 0.01);
        let mean = QrpoConfig { log_prob: LogProb::Mean, ..config };
        assert!(setting.own(&ObjectiveConfig::Qrpo(mean), &data).is_none());
    }
}

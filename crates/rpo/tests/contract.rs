//! What every objective promises, whatever its formula: right gradients, none into the reference, every trainable tensor
//! reached, nothing leaking between neighbours in a batch, finite values at the extremes, accumulation that changes
//! nothing, recomputation neither.

mod common;

use rpo::stop::Stop;

use burn::module::Module;
use burn::tensor::Tensor;
use common::device;
use rpo::batch::{PackedBatch, Span};
use rpo::burn;
use rpo::feedback::{FeedbackSet, PromptGroup, Response, Split};
use rpo::model::{Config, Model, NamedParameters, RandomWeights, ValueKind};
use rpo::objective::{
    DroConfig, GroupCentredConfig, KtoConfig, Objective, ObjectiveConfig, Partition, QrpoConfig, RpoConfig, SftConfig,
    SftRows, Step, Threshold, Transform, ZeroPoint,
};
use rpo::reference::References;
use rpo::score::{Learner, LogProb, Scores, score};
use rpo::train::optim::{Optimizer, OptimizerConfig};
use rpo::train::{Event, Observer, Passes, Progress, State, StepReport, Task, TrainConfig, Trainer, learner};

/// An objective with what it declares.
struct Case {
    config: ObjectiveConfig,
    /// By what the policy's gradient is scaled on purpose.
    policy_gradient: f64,
    /// Whether a loss depends on which responses share a micro-batch.
    batch_coupled: bool,
    /// The configuration of the models.
    family: &'static str,
}

const T5: &str = r#"{"model_type":"t5","vocab_size":10,"d_model":8,"d_kv":4,"d_ff":16,"num_layers":2,"num_heads":2,
    "feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#;
const LLAMA: &str = r#"{"model_type":"llama","vocab_size":10,"hidden_size":8,"intermediate_size":16,"num_hidden_layers":2,
    "num_attention_heads":4,"num_key_value_heads":2,"attention_bias":true,"eos_token_id":1,"initializer_range":0.35}"#;

fn cases() -> Vec<Case> {
    let plain = |config| Case { config, policy_gradient: 1.0, batch_coupled: false, family: T5 };
    let defaults = ObjectiveConfig::ALL.map(|(name, _)| ObjectiveConfig::named(name).expect("listed"));
    let mut cases: Vec<Case> = defaults.into_iter().filter(|c| c.name() != "dro").map(plain).collect();
    for log_prob in [LogProb::Mean, LogProb::Sum] {
        for partition in [Partition::Fitted, Partition::Sum, Partition::Mean, Partition::Sampled, Partition::BatchMean]
        {
            cases.push(plain(ObjectiveConfig::Rpo(RpoConfig {
                tau: 0.5,
                partition,
                log_prob,
                ..RpoConfig::default()
            })));
        }
        let tau = 0.5;
        cases.push(plain(ObjectiveConfig::GroupCentred(GroupCentredConfig { tau, log_prob, ..Default::default() })));
        cases.push(plain(ObjectiveConfig::Kto(KtoConfig { beta: 0.7, log_prob, ..KtoConfig::default() })));
        for value_network in [ValueKind::OwnEncoder, ValueKind::SharedEncoder] {
            let config = ObjectiveConfig::Dro(DroConfig { tau: 4.0, value_network, log_prob, ..DroConfig::default() });
            cases.push(Case { policy_gradient: 0.25, ..plain(config) });
        }
    }
    for transform in [Transform::Log, Transform::Normal] {
        cases.push(plain(ObjectiveConfig::Qrpo(QrpoConfig { beta: 0.5, transform, ..QrpoConfig::default() })));
    }
    cases.push(plain(ObjectiveConfig::Kto(KtoConfig { threshold: Threshold::PromptMean, ..KtoConfig::default() })));
    let matched = KtoConfig { beta: 0.7, zero_point: ZeroPoint::Matched, ..KtoConfig::default() };
    cases.push(Case { batch_coupled: true, ..plain(ObjectiveConfig::Kto(matched)) });
    cases.push(plain(ObjectiveConfig::Sft(SftConfig { rows: SftRows::Best, ..SftConfig::default() })));
    let decoder_only = |case: &Case| Case { config: case.config.clone(), family: LLAMA, ..*case };
    let others: Vec<Case> = cases.iter().map(decoder_only).collect();
    cases.extend(others);
    cases
}

/// Prompts with unequal numbers of responses of unequal length, some tied.
fn data() -> Split {
    let mut row = 0;
    let mut group = |prompt: &[u32], responses: &[(&[u32], f64)]| PromptGroup {
        prompt: prompt.to_vec(),
        first_row: 0,
        responses: responses
            .iter()
            .map(|(ids, reward)| {
                row += 1;
                Response { row: row - 1, ids: ids.to_vec(), truncated: false, reward: *reward, copies: 1 }
            })
            .collect(),
    };
    let train = vec![
        group(&[3, 4, 5, 1], &[(&[6, 7, 1], 2.0), (&[8, 1], -1.0), (&[9, 9, 9, 9, 9, 1], 0.5)]),
        group(&[5, 1], &[(&[6, 1], 1.0)]),
        group(&[7, 8, 9, 3, 3, 3, 1], &[(&[1], 0.0), (&[4, 5, 6, 1], 3.0)]),
        group(&[8, 3, 1], &[(&[5, 5, 1], 1.0), (&[6, 6, 1], 1.0), (&[7, 1], -2.0), (&[3, 4, 3, 1], 0.25)]),
        group(&[6, 1], &[(&[4, 1], 0.5), (&[5, 6, 1], 0.5)]),
    ];
    Split { train: FeedbackSet { groups: train }, validation: FeedbackSet::default() }
}

fn model(family: &str, seed: u64) -> Model {
    let config = Config::parse(family).expect("valid");
    Model::new(&config, &mut RandomWeights::new(seed), &device().autodiff()).expect("random")
}

/// An objective ready to be asked.
struct Prepared {
    objective: Box<dyn Objective>,
    learner: Learner,
    data: Split,
    mismatched: Split,
    /// `log p(y|x')` under the policy, by row.
    policy_mismatched: Vec<f64>,
    name: String,
}

fn sums(model: &Model, split: &Split) -> Vec<f64> {
    let spans: Vec<Span> = (0..split.train.groups.len()).map(|i| Span::whole(i, &split.train)).collect();
    let scores = score(model, &PackedBatch::pack(&split.train, &spans, model.start()));
    let values: Vec<f32> = scores.log_probs.into_data().try_to_vec().expect("f32");
    values.into_iter().map(f64::from).collect()
}

impl Prepared {
    fn new(case: &Case, data: Split) -> Self {
        let (reference, policy) = (model(case.family, 1), model(case.family, 2));
        let mismatched = data.mismatched(3).expect("many prompts");
        let mut objective = case.config.build().expect("valid");
        let references =
            Passes::of(objective.needs(), &data, Some(&mismatched)).compute(&reference, 1000).expect("scored");
        objective.prepare(&data, &references).expect("defined");
        let mut learner = learner(policy, objective.needs(), 5).expect("random");
        // A head of zeros, as values start, lets no gradient through.
        learner.value = learner.value.map(|value| value.map_parameters(|_, _, values| values.add_scalar(0.02)));
        let policy_mismatched = sums(&learner.policy.valid(), &mismatched);
        Self {
            objective,
            learner,
            data,
            mismatched,
            policy_mismatched,
            name: format!("{:?}, {}", case.config, &case.family[..22]),
        }
    }

    /// The groups in the order given, without responses that are not used.
    fn spans(&self, order: &[usize]) -> (FeedbackSet, Vec<Span>) {
        let mut groups: Vec<PromptGroup> = order.iter().map(|&i| self.data.train.groups[i].clone()).collect();
        groups.iter_mut().for_each(|g| g.responses.retain(|r| self.objective.uses(r.row)));
        groups.retain(|g| !g.responses.is_empty());
        let data = FeedbackSet { groups };
        let spans = (0..data.groups.len()).map(|i| Span::whole(i, &data)).collect();
        (data, spans)
    }

    fn loss_of(&self, scores: &Scores, step: &[usize]) -> Tensor<1> {
        let mismatched: Vec<f64> = step.iter().map(|&row| self.policy_mismatched[row]).collect();
        self.objective.loss(scores, Step { rows: step, mismatched: &mismatched }).expect("readable").sum
    }

    /// Sum of the losses of the groups in `batches`, which together are a step, and the learner's gradients.
    fn loss_and_gradients(&self, batches: &[Vec<usize>]) -> (f64, Vec<(String, Vec<f32>)>) {
        let step: Vec<usize> =
            batches.iter().flat_map(|order| self.spans(order).0.iter().map(|r| r.row).collect::<Vec<_>>()).collect();
        let mut sum: Option<Tensor<1>> = None;
        for order in batches {
            let (data, spans) = self.spans(order);
            if spans.is_empty() {
                continue;
            }
            let batch = PackedBatch::pack(&data, &spans, self.learner.policy.start());
            let loss = self.loss_of(&self.learner.score(&batch), &step);
            sum = Some(sum.map_or(loss.clone(), |s| s + loss));
        }
        let sum = sum.expect("some batch");
        let value = f64::from(sum.clone().into_scalar::<f32>());
        let gradients = self.learner.gradients(&mut sum.backward()).into_iter().map(|(name, gradient)| {
            let gradient = gradient.unwrap_or_else(|| panic!("{}: {name} is not reached", self.name));
            (name, gradient.into_data().try_to_vec::<f32>().expect("f32"))
        });
        (value, gradients.collect())
    }
}

fn leaf(values: &[f64]) -> Tensor<1> {
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    Tensor::<1>::from_floats(values.as_slice(), &device().autodiff()).require_grad()
}

/// Scores of all used rows at given values, in the order of the data.
fn scores_at(p: &Prepared, log_probs: &[f64], values: &[f64]) -> (Scores, Tensor<1>, Tensor<1>) {
    let (data, _) = p.spans(&[0, 1, 2, 3, 4]);
    let (log_probs, values) = (leaf(log_probs), leaf(values));
    let scores = Scores {
        log_probs: log_probs.clone(),
        tokens: data.iter().map(|r| r.ids.len()).collect(),
        rows: data.iter().map(|r| r.row).collect(),
        prompt_of: data.groups.iter().enumerate().flat_map(|(i, g)| g.responses.iter().map(move |_| i)).collect(),
        values: p.learner.value.is_some().then(|| values.clone()),
    };
    (scores, log_probs, values)
}

#[test]
fn gradients_equal_finite_differences() {
    for case in cases().iter().filter(|c| !c.batch_coupled) {
        let p = Prepared::new(case, data());
        let (set, _) = p.spans(&[0, 1, 2, 3, 4]);
        let rows: Vec<usize> = set.iter().map(|r| r.row).collect();
        let n = rows.len();
        let base = [sums(&p.learner.policy.valid(), &p.data), (0..20).map(|i| 0.1 * f64::from(i) - 0.7).collect()];
        let base = [rows.iter().map(|&r| base[0][r]).collect::<Vec<f64>>(), base[1][..n].to_vec()];
        let loss_at =
            |at: &[Vec<f64>; 2]| f64::from(p.loss_of(&scores_at(&p, &at[0], &at[1]).0, &rows).into_scalar::<f32>());
        let (scores, log_probs, values) = scores_at(&p, &base[0], &base[1]);
        let gradients = p.loss_of(&scores, &rows).backward();
        let inputs = [(log_probs, case.policy_gradient), (values, 1.0)];
        for (which, (input, scale)) in inputs.into_iter().enumerate().take(1 + usize::from(p.learner.value.is_some())) {
            let got: Vec<f32> = input.grad(&gradients).expect("reached").into_data().try_to_vec().expect("f32");
            for i in 0..n {
                let shifted = |h: f64| {
                    let mut at = base.clone();
                    at[which][i] += h;
                    loss_at(&at)
                };
                let want = scale * (shifted(0.05) - shifted(-0.05)) / 0.1;
                let error = (f64::from(got[i]) - want).abs();
                assert!(error < 0.01 * want.abs() + 0.003, "{} input {which}, {i}: {} for {want}", p.name, got[i]);
            }
        }
    }
}

#[test]
fn every_trainable_tensor_is_reached_and_the_reference_is_not() {
    for case in &cases() {
        let p = Prepared::new(case, data());
        let (_, gradients) = p.loss_and_gradients(&[vec![0, 1, 2, 3, 4]]);
        for (name, gradient) in gradients {
            assert!(gradient.iter().any(|g| *g != 0.0), "{}: the gradient of {name} is zero", p.name);
        }
        // Reference scores from a model that tracks gradients: they are plain numbers, and nothing flows back.
        let reference = model(case.family, 1);
        let mut objective = case.config.build().expect("valid");
        let references =
            Passes::of(objective.needs(), &p.data, Some(&p.mismatched)).compute(&reference, 1000).expect("scored");
        objective.prepare(&p.data, &references).expect("defined");
        let p = Prepared { objective, ..p };
        let (data, spans) = p.spans(&[0, 2, 3]);
        let batch = PackedBatch::pack(&data, &spans, p.learner.policy.start());
        let mut tape = p.loss_of(&p.learner.score(&batch), &batch.rows).backward();
        assert!(reference.gradients(&mut tape).iter().all(|(_, g)| g.is_none()), "{}", p.name);
        assert!(p.learner.gradients(&mut tape).iter().all(|(_, g)| g.is_some()), "{}", p.name);
    }
}

#[test]
fn neighbours_and_order_do_not_matter() {
    for case in cases().iter().filter(|c| !c.batch_coupled) {
        let p = Prepared::new(case, data());
        let (together, gradients) = p.loss_and_gradients(&[vec![0, 1, 2, 3, 4]]);
        let others = [vec![vec![3, 1, 4, 0, 2]], vec![vec![0], vec![1], vec![2], vec![3], vec![4]]];
        for batches in others {
            let (apart, others) = p.loss_and_gradients(&batches);
            let close = |a: f64, b: f64| (a - b).abs() < 1e-4 * (1.0 + a.abs().max(b.abs()));
            assert!(close(together, apart), "{} {batches:?}: {together} and {apart}", p.name);
            for ((name, a), (_, b)) in gradients.iter().zip(&others) {
                let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let worst = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(worst <= 1e-3 * largest + 1e-5, "{} {batches:?}, {name}: {worst} of {largest}", p.name);
            }
        }
    }
}

#[test]
fn the_extremes_are_finite() {
    for case in &cases() {
        let mut data = data();
        let extremes = [1e4, -1e4, 0.0];
        let responses = data.train.groups.iter_mut().flat_map(|g| &mut g.responses);
        responses.enumerate().for_each(|(i, r)| r.reward = extremes[i % 3]);
        let p = Prepared::new(case, data);
        let (set, _) = p.spans(&[0, 1, 2, 3, 4]);
        let rows: Vec<usize> = set.iter().map(|r| r.row).collect();
        for pattern in [[0.0, -1e4], [-1e4, 0.0], [-1e4, -1e4], [0.0, 0.0]] {
            let log_probs: Vec<f64> = (0..rows.len()).map(|i| pattern[i % 2]).collect();
            let (scores, log_probs, _) = scores_at(&p, &log_probs, &vec![100.0; rows.len()]);
            let loss = p.loss_of(&scores, &rows);
            let gradient = log_probs.grad(&loss.clone().backward()).expect("reached");
            let gradient: Vec<f32> = gradient.into_data().try_to_vec().expect("f32");
            assert!(loss.into_scalar::<f32>().is_finite(), "{} {pattern:?}", p.name);
            assert!(gradient.iter().all(|g| g.is_finite()), "{} {pattern:?}", p.name);
        }
    }
}

/// Collects the steps' reports.
struct Steps(Vec<StepReport>);

impl Observer for Steps {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        if let Event::Step(report) = event {
            self.0.push((*report).clone());
        }
        Ok(())
    }
}

#[test]
fn neither_accumulation_nor_recomputation_changes_anything() {
    for case in &cases() {
        let run = |micro_batch_tokens, recompute| {
            let p = Prepared::new(case, data());
            let optimizer = OptimizerConfig { learning_rate: 1e-3, ..OptimizerConfig::default() };
            let config = TrainConfig {
                max_steps: Some(4),
                batch_size: 8,
                micro_batch_tokens,
                recompute,
                optimizer: optimizer.clone(),
                ..TrainConfig::default()
            };
            let mismatched = p.objective.needs().mismatched.then_some(p.mismatched);
            let (objective, references) = (p.objective, References::default());
            let task = Task { objective, data: p.data, mismatched, references, facts: Vec::new() };
            let trainer = Trainer {
                task,
                config: &config,
                saving: None,
                judge: None,
                stop: &Stop::new(),
                world: &rpo::world::Alone,
            };
            let mut steps = Steps(Vec::new());
            let optimizer = Optimizer::new(optimizer).expect("valid");
            trainer
                .run(State { learner: p.learner, optimizer, progress: Progress::default() }, &mut [&mut steps])
                .expect("trains");
            steps.0
        };
        let plain = run(100_000, false);
        let worst = |other: Vec<StepReport>| {
            let differences = plain.iter().zip(other).map(|(one, other)| {
                let difference = |a: f64, b: f64| (a - b).abs() / (1e-3 + a.abs());
                difference(one.means.loss, other.means.loss).max(difference(one.grad_norm, other.grad_norm))
            });
            differences.fold(0.0, f64::max)
        };
        let accumulated = worst(run(1, false));
        // The published zero point is a mean over the micro-batch: there accumulation is known to matter.
        assert_eq!(accumulated < 1e-3, !case.batch_coupled, "{:?}: {accumulated}", case.config);
        let recomputed = worst(run(100_000, true));
        assert!(recomputed < 1e-5, "{:?}: {recomputed}", case.config);
    }
}

#[test]
fn impossible_settings_are_refused_by_name() {
    for field in ["tau", "beta"] {
        for value in ["0", "-1", "nan"] {
            for (name, _) in ObjectiveConfig::ALL {
                let text = format!("name = \"{name}\"\n{field} = {value}\n");
                let Ok(config) = toml::from_str::<ObjectiveConfig>(&text) else { continue };
                let said = config.build().map(|_| ()).expect_err("impossible").to_string();
                assert!(said.contains(field), "{text}: {said}");
            }
        }
    }
}

#[test]
fn data_without_a_preference_is_refused_where_one_is_needed() {
    for (name, _) in ObjectiveConfig::ALL.into_iter().filter(|(name, _)| *name != "sft") {
        let mut data = data();
        data.train.groups.iter_mut().flat_map(|g| &mut g.responses).for_each(|r| r.reward = 0.1);
        let mut objective = ObjectiveConfig::named(name).expect("listed").build().expect("valid");
        let references =
            Passes::of(objective.needs(), &data, Some(&data)).compute(&model(T5, 1), 1000).expect("scored");
        let said = objective.prepare(&data, &references).expect_err("all equal").to_string();
        assert!(said.contains("rewards equal 0.1:"), "{name}: {said}");
    }
}

#[test]
fn mismatched_pairs_keep_rows_and_change_every_prompt() {
    let data = data();
    let mismatched = data.mismatched(3).expect("many prompts");
    for (a, b) in data.train.groups.iter().zip(&mismatched.train.groups) {
        assert_eq!(a.responses, b.responses);
        assert_ne!(a.prompt, b.prompt);
    }
    let mut prompts: Vec<_> = mismatched.train.groups.iter().map(|g| &g.prompt).collect();
    prompts.sort();
    prompts.dedup();
    assert_eq!(prompts.len(), data.train.groups.len(), "each prompt is used once");
    let one = Split { train: FeedbackSet { groups: data.train.groups[..1].to_vec() }, ..Split::default() };
    assert!(one.mismatched(3).is_err_and(|e| e.to_string().contains("at least two")));
}

//! What a set of ratings is fit for: from plain statistics to an objective with its reason, and to warnings where a setting is
//! known to do harm on such data. It reads rewards and counts, nothing else.

use std::collections::HashSet;

use serde::Serialize;

use crate::feedback::{FeedbackSet, PromptGroup, Split};
use crate::objective::{ObjectiveConfig, Partition, SftRows};

/// Below this many responses a prompt, on average, they are few of those that the model could give.
const FEW: f64 = 8.0;
/// A reward further from the median than this many interquartile ranges stands alone.
const FAR: f64 = 1000.0;
/// So is one that makes up this share of the rewards' variance, ...
const DOMINANT: f64 = 0.9;
/// ... where there are at least this many rewards to compare it with.
const ENOUGH: usize = 30;

/// What decides about objectives: counts of prompts and of their different responses.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Prompts.
    pub prompts: usize,
    /// Responses, repeated ones once.
    pub responses: usize,
    /// Prompts with one response.
    pub single: usize,
    /// Prompts with one response whose reward is below the mean.
    pub single_below_mean: usize,
    /// Prompts with several responses whose rewards differ.
    pub ranked: usize,
    /// Different rewards.
    pub distinct_rewards: usize,
    /// Mean reward.
    pub mean_reward: f64,
    /// Whether prompts share nearly all their responses, as labels or a closed list of answers do.
    pub closed: bool,
    /// A reward that stands alone.
    pub outlier: Option<Outlier>,
}

/// A reward that stands alone, and where it is found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outlier {
    /// The reward.
    pub reward: f64,
    /// Number of the prompt, from 1, in the order in which they first appear.
    pub prompt: usize,
    /// Number of its response, from 1, repeated ones counting once.
    pub response: usize,
}

/// What to do with the data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The objective and its settings, as arguments of `rpo train`.
    pub train: &'static str,
    /// Why.
    pub reason: String,
    /// What is worth comparing with it.
    pub compare_with: Option<&'static str>,
}

impl Facts {
    /// From the rewards of each prompt's different responses, and the number of different responses over all prompts.
    pub fn of(groups: &[Vec<f64>], distinct_responses: usize) -> Self {
        let all: Vec<f64> = groups.iter().flatten().copied().collect();
        let mean_reward = all.iter().sum::<f64>() / all.len().max(1) as f64;
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let distinct_rewards = sorted.chunk_by(|a, b| a == b).count();
        let single = || groups.iter().filter(|g| g.len() == 1);
        Self {
            prompts: groups.len(),
            responses: all.len(),
            single: single().count(),
            single_below_mean: single().filter(|g| g[0] < mean_reward).count(),
            ranked: groups.iter().filter(|g| g.iter().any(|r| *r != g[0])).count(),
            distinct_rewards,
            mean_reward,
            closed: groups.len() > 1 && distinct_responses as f64 <= 1.5 * all.len() as f64 / groups.len() as f64,
            outlier: if distinct_rewards > 2 { alone(&sorted).and_then(|r| find(groups, r)) } else { None },
        }
    }

    /// Of a data set that was split, in its order before.
    pub fn of_split(split: &Split) -> Self {
        let sets: [&FeedbackSet; 2] = [&split.train, &split.validation];
        let mut groups: Vec<&PromptGroup> = sets.iter().flat_map(|set| &set.groups).collect();
        groups.sort_by_key(|g| g.responses.first().map(|r| r.row));
        let distinct: HashSet<&[u32]> = groups.iter().flat_map(|g| &g.responses).map(|r| r.ids.as_slice()).collect();
        let rewards: Vec<Vec<f64>> = groups.iter().map(|g| g.responses.iter().map(|r| r.reward).collect()).collect();
        Self::of(&rewards, distinct.len())
    }

    /// Responses per prompt.
    pub fn mean_responses(&self) -> f64 {
        self.responses as f64 / self.prompts.max(1) as f64
    }
}

/// The value of `sorted`, if any, that is far from all others or makes up most of their variance.
fn alone(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    let (&low, &high) = (sorted.first()?, sorted.last()?);
    let median = sorted[n / 2];
    let farthest = if high - median > median - low { high } else { low };
    let range = sorted[3 * n / 4] - sorted[n / 4];
    if range > 0.0 && (farthest - median).abs() > FAR * range {
        return Some(farthest);
    }
    // In units of the largest distance from the mean, so that squares stay in range.
    let mean = sorted.iter().map(|v| v / n as f64).sum::<f64>();
    let scale = (farthest - mean).abs();
    let squares: f64 = sorted.iter().map(|v| ((v - mean) / scale).powi(2)).sum();
    (n >= ENOUGH && scale > 0.0 && 1.0 / squares > DOMINANT).then_some(farthest)
}

fn find(groups: &[Vec<f64>], reward: f64) -> Option<Outlier> {
    let place = |group: &Vec<f64>| group.iter().position(|r| *r == reward);
    let found = groups.iter().enumerate().find_map(|(prompt, group)| Some((prompt, place(group)?)));
    found.map(|(prompt, response)| Outlier { reward, prompt: prompt + 1, response: response + 1 })
}

/// Which objective to train with first.
pub fn advise(facts: &Facts) -> Advice {
    let Facts { prompts, single, ranked, distinct_rewards, .. } = *facts;
    let rpo = |reason: String| Advice { train: "rpo", reason, compare_with: None };
    match distinct_rewards {
        0 | 1 => Advice {
            train: "sft",
            reason: "all rewards are equal, which leaves nothing but to imitate; check the reward column".into(),
            compare_with: None,
        },
        _ if single < prompts && ranked == 0 => Advice {
            train: "sft",
            reason: "no prompt has responses with different rewards: there is nothing to learn within prompts".into(),
            compare_with: None,
        },
        2 => Advice { compare_with: Some("kto"), ..rpo("there are two rewards, such as thumbs up and down".into()) },
        _ if ranked > 0 => rpo(format!("{ranked} of {prompts} prompts have responses with different rewards")),
        n => rpo(format!("each prompt has one response, rated on a scale of {n} values")),
    }
}

/// The advice in one line.
pub fn one_line(advice: &Advice) -> String {
    let other = advice.compare_with.map(|name| format!(" (compare with {name})")).unwrap_or_default();
    format!("advice: rpo train {}{other}: {}", advice.train, advice.reason)
}

/// What the data themselves are suspected of.
pub fn suspicions(facts: &Facts) -> Vec<String> {
    let outlier = facts.outlier.map(|Outlier { reward, prompt, response }| {
        format!(
            "the reward {reward:?} of response {response} of prompt {prompt} is far from all others and decides the scale of \
             the rewards by itself; check it, or leave that row out"
        )
    });
    outlier.into_iter().collect()
}

/// Where `objective` is known to do harm on such data, and what to do instead.
pub fn harms(facts: &Facts, objective: &ObjectiveConfig) -> Vec<String> {
    let mut said = Vec::new();
    match objective {
        ObjectiveConfig::Rpo(rpo)
            if matches!(rpo.partition, Partition::Sum | Partition::Mean | Partition::BatchMean)
                && facts.mean_responses() < FEW
                && facts.ranked > 0
                && !facts.closed =>
        {
            said.push(format!(
                "the partition of the paper counts the rated responses, {:.1} a prompt here, as if they were all that could \
                 be said: it draws all probability to them, the bad ones among them. Use --partition fitted \
                 unless they are",
                facts.mean_responses()
            ));
        }
        ObjectiveConfig::Sft(sft) if sft.rows == SftRows::Best && facts.single_below_mean > 0 => {
            said.push(format!(
                "--rows best takes the only response of a prompt for its best: {} of {} such responses are rated below the \
                 mean of {:.4}, and are imitated too. Give a threshold instead, such as --rows {:.4}",
                facts.single_below_mean, facts.single, facts.mean_reward, facts.mean_reward
            ));
        }
        _ => {}
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{RpoConfig, SftConfig};

    fn facts(groups: &[&[f64]], distinct_responses: usize) -> Facts {
        Facts::of(&groups.iter().map(|g| g.to_vec()).collect::<Vec<_>>(), distinct_responses)
    }

    #[test]
    fn facts_by_hand() {
        let got = facts(&[&[1.0, 2.0, 3.0], &[0.0], &[4.0], &[2.0, 2.0]], 7);
        let want = Facts {
            prompts: 4,
            responses: 7,
            single: 2,
            single_below_mean: 1,
            ranked: 1,
            distinct_rewards: 5,
            mean_reward: 2.0,
            closed: false,
            outlier: None,
        };
        assert_eq!(got, want);
        assert!(facts(&[&[1.0, 0.0], &[0.0, 1.0]], 2).closed);
        assert!(!facts(&[&[1.0, 0.0]], 2).closed, "one prompt shares nothing");
    }

    #[test]
    fn advice_by_table() {
        type Case<'a> = (&'a [&'a [f64]], &'a str, Option<&'a str>, &'a str);
        let table: [Case<'_>; 6] = [
            (&[&[1.0, 2.0], &[3.0]], "rpo", None, "1 of 2 prompts have responses with different rewards"),
            (&[&[1.0], &[2.0], &[3.0]], "rpo", None, "on a scale of 3 values"),
            (&[&[1.0], &[0.0]], "rpo", Some("kto"), "two rewards"),
            (&[&[1.0, 0.0]], "rpo", Some("kto"), "two rewards"),
            (&[&[1.0, 1.0], &[2.0, 2.0]], "sft", None, "nothing to learn within prompts"),
            (&[&[1.0, 1.0], &[1.0]], "sft", None, "all rewards are equal"),
        ];
        for (groups, train, compare_with, reason) in table {
            let advice = advise(&facts(groups, 9));
            assert_eq!((advice.train, advice.compare_with), (train, compare_with), "{groups:?}");
            assert!(advice.reason.contains(reason), "{groups:?}: {}", advice.reason);
        }
    }

    #[test]
    fn a_reward_that_stands_alone_is_found() {
        let outlier = |values: &[f64]| facts(&values.iter().map(std::slice::from_ref).collect::<Vec<_>>(), 99).outlier;
        let many: Vec<f64> = (0..40).map(|i| f64::from(i % 5)).collect();
        let with = |reward: f64| [&many[..7], &[reward], &many[7..]].concat();
        for reward in [1e30, -1e5, 1e300, f64::MAX] {
            let found = outlier(&with(reward)).map(|o| (o.reward, o.prompt, o.response));
            assert_eq!(found, Some((reward, 8, 1)), "{reward}");
        }
        // Most are equal, so that the middle half has no width.
        let mut equal = vec![0.0; 40];
        equal[0] = 1.0;
        equal[3] = -1e6;
        assert_eq!(outlier(&equal).map(|o| o.prompt), Some(4));
        // Scales, thumbs, a rare thumbs-up, heavy tails, few values.
        assert_eq!(outlier(&many), None);
        assert_eq!(outlier(&with(30.0)), None);
        equal[3] = 0.0;
        assert_eq!(outlier(&equal), None);
        assert_eq!(outlier(&[0.0, 0.0, 0.1, 5.0]), None);
        assert_eq!(outlier(&(0..100).map(|i| -f64::from(i).powi(3)).collect::<Vec<_>>()), None);
    }

    #[test]
    fn harm_is_told_where_it_is_known_and_nowhere_else() {
        let rpo = |partition| ObjectiveConfig::Rpo(RpoConfig { partition, ..RpoConfig::default() });
        let few = facts(&[&[1.0, 0.0, 0.5, 2.0], &[0.0, 1.0, 2.0, 0.5]], 8);
        for partition in [Partition::Sum, Partition::Mean, Partition::BatchMean] {
            assert!(harms(&few, &rpo(partition)).concat().contains("4.0 a prompt"));
        }
        assert!(harms(&few, &rpo(Partition::Sampled)).is_empty());
        let all = Facts { closed: true, ..few.clone() };
        let many = Facts { responses: 16, ..few.clone() };
        assert!(harms(&all, &rpo(Partition::Sum)).is_empty() && harms(&many, &rpo(Partition::Sum)).is_empty());
        let best = ObjectiveConfig::Sft(SftConfig { rows: SftRows::Best, ..SftConfig::default() });
        assert!(harms(&few, &best).is_empty());
        let thumbs = facts(&[&[1.0], &[0.0], &[0.0], &[1.0, 0.0]], 5);
        assert!(harms(&thumbs, &best).concat().contains("2 of 3 such responses"));
        assert!(harms(&thumbs, &ObjectiveConfig::Sft(SftConfig::default())).is_empty());
    }
}

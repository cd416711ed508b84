//! What ranks exchange of gradients and weights. Each parameter belongs to one rank, which adds up its gradients shard by shard, keeps
//! what the optimizer remembers of it, and sends its new value to the others: the bytes of an all-reduce, with moments and updates
//! shared out (Rajbhandari et al., ZeRO, arXiv 1910.02054, stage 1). Whole parameters are shared out, so that norms and updates
//! are computed as by a process alone.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use super::optim::{GradientSum, Optimizer};
use super::{Progress, State};
use crate::error::Result;
use crate::host::{host, vector};
use crate::model::NamedParameters;
use crate::score::Learner;
use crate::store::tensors::Parameter;
use crate::world::World;

/// Which rank each trained parameter belongs to.
pub(super) struct Owners {
    /// By name: the rank, and how many numbers it has.
    of: BTreeMap<String, (usize, usize)>,
    device: Device,
}

/// By shard of a rank, in order: whether each trained parameter was reached.
pub(super) type Reached = Vec<Vec<bool>>;

impl Owners {
    /// The largest parameters first, each to the rank that has least.
    pub fn new(learner: &Learner, ranks: usize) -> Self {
        let mut sizes: Vec<(usize, String)> =
            learner.trained().into_iter().map(|p| (p.shape.iter().product(), p.name)).collect();
        sizes.sort_by(|(a, name), (b, other)| b.cmp(a).then_with(|| name.cmp(other)));
        let mut load = vec![0; ranks];
        let owner = |(size, name): (usize, String)| {
            let rank = (0..ranks).min_by_key(|&rank| (load[rank], rank)).unwrap_or(0);
            load[rank] += size;
            (name, (rank, size))
        };
        Self { of: sizes.into_iter().map(owner).collect(), device: learner.policy.device().inner() }
    }

    /// Which parameters these gradients are of.
    pub fn reached(&self, sums: &[GradientSum]) -> Reached {
        sums.iter().map(|sum| self.of.keys().map(|name| sum.by_name().contains_key(name)).collect()).collect()
    }

    /// The sums over all shards, in their order, of the gradients of this rank's parameters. `own` are those of this rank's shards,
    /// `reached` what every rank's shards hold.
    ///
    /// # Errors
    /// If a rank cannot be reached or the device fails.
    pub fn fold(&self, world: &dyn World, own: Vec<GradientSum>, reached: &[Reached]) -> Result<GradientSum> {
        if world.size() == 1 {
            return Ok(own.into_iter().reduce(GradientSum::plus).unwrap_or_default());
        }
        let me = world.rank();
        let mine = |name: &String| self.of[name].0 == me;
        // A rank that has none to send must not leave the others waiting for them.
        let own: Vec<BTreeMap<String, Vec<f32>>> =
            world.agreed(own.into_iter().map(GradientSum::into_host).collect())?;
        let mut sent: Vec<(usize, &[f32])> = Vec::new();
        for (name, values) in own.iter().flatten() {
            if let Some(&(owner, _)) = self.of.get(name).filter(|(owner, _)| *owner != me) {
                sent.push((owner, values));
            }
        }
        let mut others: Vec<Vec<BTreeMap<&String, Vec<f32>>>> = reached
            .iter()
            .enumerate()
            .map(|(rank, shards)| {
                let places = |shard: &Vec<bool>| {
                    let of_shard = self.of.iter().zip(shard).filter(|((name, _), there)| **there && mine(name));
                    of_shard.map(|((name, (_, n)), _)| (name, vec![0.0; *n])).collect()
                };
                if rank == me { Vec::new() } else { shards.iter().map(places).collect() }
            })
            .collect();
        let received = others.iter_mut().enumerate().flat_map(|(rank, shards)| {
            shards.iter_mut().flat_map(BTreeMap::values_mut).map(move |place| (rank, place.as_mut_slice()))
        });
        world.exchange(&sent, received.collect())?;
        let mut total = GradientSum::default();
        for name in self.of.keys().filter(|name| mine(name)) {
            let mut sum: Option<Vec<f32>> = None;
            for (rank, shards) in others.iter_mut().enumerate() {
                let of_rank: Vec<Vec<f32>> = match rank == me {
                    true => own.iter().filter_map(|shard| shard.get(name).cloned()).collect(),
                    false => shards.iter_mut().filter_map(|shard| shard.remove(name)).collect(),
                };
                for values in of_rank {
                    match &mut sum {
                        Some(sum) => add(sum, &values),
                        None => sum = Some(values),
                    }
                }
            }
            if let Some(sum) = sum {
                total.insert(name.clone(), vector(sum, &self.device));
            }
        }
        Ok(total)
    }

    /// The learner with the new values of all parameters, each as its own rank has it.
    ///
    /// # Errors
    /// If a rank cannot be reached or the device fails.
    pub fn share(&self, world: &dyn World, learner: Learner) -> Result<Learner> {
        if world.size() == 1 {
            return Ok(learner);
        }
        let me = world.rank();
        let others = || (0..world.size()).filter(|&rank| rank != me);
        let mut own: BTreeMap<String, Tensor<1>> = BTreeMap::new();
        for parameter in learner.trained().into_iter().filter(|p| self.of.get(&p.name).is_some_and(|(o, _)| *o == me)) {
            own.insert(parameter.name, parameter.values);
        }
        let read = |(name, values)| Ok((name, host(values)?));
        let own: BTreeMap<String, Vec<f32>> = world.agreed(own.into_iter().map(read).collect())?;
        let sent: Vec<(usize, &[f32])> =
            others().flat_map(|to| own.values().map(move |values| (to, values.as_slice()))).collect();
        let mut places: BTreeMap<String, Vec<f32>> =
            self.of.iter().filter(|(_, (o, _))| *o != me).map(|(name, (_, n))| (name.clone(), vec![0.0; *n])).collect();
        let received = places.iter_mut().map(|(name, place)| (self.of[name].0, place.as_mut_slice())).collect();
        world.exchange(&sent, received)?;
        Ok(learner.map_parameters(|name, _, value| match places.remove(name) {
            Some(values) => vector(values, &self.device),
            None => value,
        }))
    }

    /// The state of the first rank, on all: weights, progress, and of what the optimizer remembers what is a rank's own. The others give
    /// one that begins.
    ///
    /// # Errors
    /// If a rank cannot be reached or the device fails.
    pub fn begin(&self, world: &dyn World, state: State) -> Result<State> {
        let State { learner, optimizer, progress } = state;
        let progress: Progress = world.once(|| Ok(progress))?;
        let others = || 1..world.size();
        let named = |p: Parameter| Ok((p.name, host(p.values)?));
        let mut weights: BTreeMap<String, Vec<f32>> =
            world.agreed(learner.trained().into_iter().map(named).collect())?;
        let own = world.agreed(if world.leads() { optimizer.to_host() } else { Ok(Vec::new()) })?;
        let lengths = world.once(|| Ok(lengths(&own)))?;
        let owner = |name: &String| self.of.get(name).map_or(0, |(owner, _)| *owner);
        if world.leads() {
            let mut sent: Vec<(usize, &[f32])> =
                others().flat_map(|to| weights.values().map(move |values| (to, values.as_slice()))).collect();
            for (name, state) in own.iter().filter(|(name, _)| owner(name) != 0) {
                sent.extend(state.iter().map(|values| (owner(name), values.as_slice())));
            }
            world.exchange(&sent, Vec::new())?;
            let own = own.into_iter().filter(|(name, _)| owner(name) == 0);
            let optimizer = optimizer.with_state(progress.step, own, &self.device);
            return Ok(State { learner, optimizer, progress });
        }
        let mut state = room(lengths.into_iter().filter(|(name, _)| owner(name) == world.rank()));
        let places = weights.values_mut().chain(state.iter_mut().flat_map(|(_, state)| state));
        world.exchange(&[], places.map(|place| (0, place.as_mut_slice())).collect())?;
        let learner = learner.map_parameters(|name, _, value| match weights.remove(name) {
            Some(values) => vector(values, &self.device),
            None => value,
        });
        let optimizer = optimizer.with_state(progress.step, state, &self.device);
        Ok(State { learner, optimizer, progress })
    }
}

/// What all ranks' optimizers remember, on the first rank; nothing on the others.
///
/// # Errors
/// If a rank cannot be reached or the device fails.
pub(super) fn gather(world: &dyn World, optimizer: &Optimizer) -> Result<Option<Optimizer>> {
    let own = world.agreed(optimizer.to_host())?;
    let all = world.together(Ok(lengths(&own)))?;
    if !world.leads() {
        let flat = own.iter().flat_map(|(_, state)| state);
        let sent: Vec<(usize, &[f32])> = flat.map(|values| (0, values.as_slice())).collect();
        world.exchange(&sent, Vec::new())?;
        return Ok(None);
    }
    let mut others: Vec<Remembered> = all.into_iter().skip(1).map(room).collect();
    let received = others.iter_mut().enumerate().flat_map(|(i, state)| {
        state.iter_mut().flat_map(|(_, state)| state).map(move |place| (i + 1, place.as_mut_slice()))
    });
    world.exchange(&[], received.collect())?;
    let all = own.into_iter().chain(others.into_iter().flatten());
    Ok(Some(optimizer.with_state(optimizer.steps(), all, &Device::flex())))
}

/// What an optimizer remembers of parameters, by their names.
type Remembered = Vec<(String, Vec<Vec<f32>>)>;

/// How many numbers there are of each.
fn lengths(state: &Remembered) -> Vec<(String, Vec<usize>)> {
    state.iter().map(|(name, state)| (name.clone(), state.iter().map(Vec::len).collect())).collect()
}

/// Room for so many numbers.
fn room(lengths: impl IntoIterator<Item = (String, Vec<usize>)>) -> Remembered {
    let place = |(name, lengths): (String, Vec<usize>)| (name, lengths.into_iter().map(|n| vec![0.0; n]).collect());
    lengths.into_iter().map(place).collect()
}

fn add(sum: &mut [f32], values: &[f32]) {
    const PIECE: usize = 1 << 16;
    sum.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE)).for_each(|(sum, values)| {
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    });
}

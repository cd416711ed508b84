//! Gradients in little memory (gradient checkpointing, Chen et al., arXiv 1604.06174): the forward pass builds no graph and
//! keeps only what enters each block, no logits; from the last block to the first, each one's graph is then built again for
//! itself. It knows the parts of a model, not what is minimised.

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};

use crate::batch::PackedBatch;
use crate::error::Result;
use crate::model::t5::{Encoder, embed};
use crate::model::{Model, NamedParameters, ValueNetwork};
use crate::score::{Learner, Scores, score_decoded};
use crate::train::optim::GradientSum;

/// Adds to `sum` the gradients of the loss that `loss` makes of the scores of `batch`: the same as those of
/// `loss(learner.score(batch))`, for about a third more time.
///
/// # Errors
/// Those of `loss`.
pub fn gradients(
    learner: &Learner,
    batch: &PackedBatch,
    loss: impl FnOnce(&Scores) -> Result<Tensor<1>>,
    sum: &mut GradientSum,
) -> Result<()> {
    let Learner { policy, value } = learner;
    let Model::T5(t5) = policy;
    let PackedBatch { prompt_ids, input_ids, prompts, .. } = batch;
    let plain = learner.valid();
    let Model::T5(plain_t5) = &plain.policy;
    let encode = |embedded, encoder: &Encoder| Trail::walk(embedded, encoder.blocks(), encoder.stages(prompts));
    let encoded = encode(plain_t5.embed(prompt_ids), plain_t5.encoder());
    let own = plain.value.as_ref().and_then(ValueNetwork::own_encoder);
    let own = own.map(|(table, encoder)| encode(embed(table, prompt_ids), encoder));
    let stages = plain_t5.decoder_stages(batch, encoded.end.clone());
    let decoded = Trail::walk(plain_t5.embed(input_ids), plain_t5.decoder_blocks(), stages);
    drop(plain);

    let mut add = |tape: &mut Gradients| sum.add(learner.gradients(tape));
    let hidden = leaf(decoded.end.clone());
    let states = value.as_ref().map(|_| leaf(own.as_ref().unwrap_or(&encoded).end.clone()));
    let scores = score_decoded(policy, value.as_ref(), hidden.clone(), states.clone(), batch, false);
    let mut tape = loss(&scores)?.backward();
    let of_hidden = reached(&hidden, &mut tape);
    let of_states = states.map(|states| reached(&states, &mut tape));
    add(&mut tape);
    drop((tape, scores, hidden));

    let memory = leaf(encoded.end.clone());
    let mut of_memory = encoded.end.zeros_like();
    let stages = || t5.decoder_stages(batch, memory.clone());
    let of_inputs = decoded.back(of_hidden, stages, &mut |tape| {
        of_memory = of_memory.clone() + reached(&memory, tape);
        add(tape);
    });

    match (own, of_states, value.as_ref().and_then(ValueNetwork::own_encoder)) {
        (Some(own), Some(of_states), Some((table, encoder))) => {
            let of_prompts = own.back(of_states, || encoder.stages(prompts), &mut add);
            add(&mut through(embed(table, prompt_ids), of_prompts));
        }
        (None, Some(of_states), None) => of_memory = of_memory + of_states,
        _ => {}
    }
    let of_prompts = encoded.back(of_memory, || t5.encoder().stages(prompts), &mut add);
    add(&mut through(t5.embed(&batch.all_ids()), Tensor::cat(vec![of_prompts, of_inputs], 0)));
    Ok(())
}

/// A chain of stages that was walked without a graph.
struct Trail {
    /// What entered each stage.
    entered: Vec<Tensor<2>>,
    /// What came out of the last.
    end: Tensor<2>,
}

impl Trail {
    /// `blocks` stages and the one that ends the stack.
    fn walk(start: Tensor<2>, blocks: usize, stage: impl Fn(usize, Tensor<2>) -> Tensor<2>) -> Self {
        let mut entered = Vec::with_capacity(blocks + 1);
        let end = (0..=blocks).fold(start, |x, i| {
            entered.push(x.clone());
            stage(i, x)
        });
        Self { entered, end }
    }

    /// From the gradient of the end to that of the start. `stages` makes the same stages with a graph, anew for each, since
    /// no graph may be walked twice; `add` hears each one's gradients.
    fn back<S: Fn(usize, Tensor<2>) -> Tensor<2>>(
        self,
        gradient: Tensor<2>,
        stages: impl Fn() -> S,
        add: &mut dyn FnMut(&mut Gradients),
    ) -> Tensor<2> {
        drop(self.end);
        self.entered.into_iter().enumerate().rev().fold(gradient, |gradient, (i, x)| {
            let x = leaf(x);
            let mut tape = through(stages()(i, x.clone()), gradient);
            let of_x = reached(&x, &mut tape);
            add(&mut tape);
            of_x
        })
    }
}

/// The beginning of a graph.
fn leaf(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_inner(x).require_grad()
}

/// Gradients of all that `y` was made of, given its own.
fn through(y: Tensor<2>, gradient: Tensor<2>) -> Gradients {
    (y * Tensor::from_inner(gradient)).sum().backward()
}

/// The gradient of a leaf; zero where the loss does not depend on it.
fn reached(leaf: &Tensor<2>, tape: &mut Gradients) -> Tensor<2> {
    leaf.grad_remove(tape).unwrap_or_else(|| leaf.clone().inner().zeros_like())
}

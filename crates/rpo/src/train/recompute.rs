//! Gradients in little memory (gradient checkpointing, Chen et al., arXiv 1604.06174): the forward pass builds no graph and
//! keeps only what enters each block, no logits; from the last block to the first, each one's graph is then built again for
//! itself. It knows the parts of a model, not what is minimised.

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};

use crate::batch::PackedBatch;
use crate::error::Result;
use crate::model::embed;
use crate::model::llama;
use crate::model::t5::Encoder;
use crate::model::{Llama, Model, NamedParameters, Reader, T5, ValueEncoder, ValueNetwork};
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
    match &learner.policy {
        Model::T5(t5) => of_t5(learner, t5, batch, loss, sum),
        Model::Llama(llama) => of_llama(learner, llama, batch, loss, sum),
    }
}

/// Encoder, decoder, and perhaps the value network's own encoder, each a chain of stages.
fn of_t5(
    learner: &Learner,
    t5: &T5,
    batch: &PackedBatch,
    loss: impl FnOnce(&Scores) -> Result<Tensor<1>>,
    sum: &mut GradientSum,
) -> Result<()> {
    let Learner { policy, value } = learner;
    let PackedBatch { prompt_ids, input_ids, prompts, .. } = batch;
    let (plain_t5, plain_value) = (t5.valid(), value.valid());
    let encode = |embedded, encoder: &Encoder| Trail::walk(embedded, encoder.blocks(), encoder.stages(prompts));
    let encoded = encode(plain_t5.embed(prompt_ids), plain_t5.encoder());
    let own_encoder = |value: &ValueNetwork| match value.reader() {
        Some(Reader::T5(own)) => Some(own.clone()),
        _ => None,
    };
    let own = plain_value.as_ref().and_then(own_encoder);
    let own = own.map(|ValueEncoder { shared, encoder }| encode(embed(&shared, prompt_ids), &encoder));
    let stages = plain_t5.decoder_stages(batch, encoded.end.clone());
    let decoded = Trail::walk(plain_t5.embed(input_ids), plain_t5.decoder_blocks(), stages);
    drop((plain_t5, plain_value));

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

    match (own, of_states, value.as_ref().and_then(own_encoder)) {
        (Some(own), Some(of_states), Some(ValueEncoder { shared, encoder })) => {
            let of_prompts = own.back(of_states, || encoder.stages(prompts), &mut add);
            of_table(embed(&shared, prompt_ids), of_prompts, &mut add);
        }
        (None, Some(of_states), None) => of_memory = of_memory + of_states,
        _ => {}
    }
    let of_prompts = encoded.back(of_memory, || t5.encoder().stages(prompts), &mut add);
    of_table(t5.embed(&batch.all_ids()), Tensor::cat(vec![of_prompts, of_inputs], 0), &mut add);
    Ok(())
}

/// One chain of stages over prompts and responses, and perhaps another of the value network over the prompts.
fn of_llama(
    learner: &Learner,
    llama: &Llama,
    batch: &PackedBatch,
    loss: impl FnOnce(&Scores) -> Result<Tensor<1>>,
    sum: &mut GradientSum,
) -> Result<()> {
    let Learner { policy, value } = learner;
    let (view, prompts, ids) = (llama::view(batch), llama::alone(&batch.prompts), batch.all_ids());
    let walk = |llama: &Llama, ids: &[u32], view| Trail::walk(llama.embed(ids), llama.blocks(), llama.stages(view));
    let own_reader = |value: &ValueNetwork| match value.reader() {
        Some(Reader::Llama(own)) => Some(own.clone()),
        _ => None,
    };
    let whole = walk(&llama.valid(), &ids, &view);
    let own = value.as_ref().and_then(own_reader).map(|own| walk(&own.valid(), &batch.prompt_ids, &prompts));

    let mut add = |tape: &mut Gradients| sum.add(learner.gradients(tape));
    let (n, m) = (batch.prompts.total(), batch.responses.total());
    let end = leaf(whole.end.clone());
    let of_own = own.as_ref().map(|own| leaf(own.end.clone()));
    let states = value.as_ref().map(|_| of_own.clone().unwrap_or_else(|| end.clone().narrow(0, 0, n)));
    let scores = score_decoded(policy, value.as_ref(), end.clone().narrow(0, n, m), states, batch, false);
    let mut tape = loss(&scores)?.backward();
    let of_end = reached(&end, &mut tape);
    let of_own = of_own.map(|leaf| reached(&leaf, &mut tape));
    add(&mut tape);
    drop((tape, scores, end));

    let of_inputs = whole.back(of_end, || llama.stages(&view), &mut add);
    of_table(llama.embed(&ids), of_inputs, &mut add);
    if let (Some(own), Some(of_own), Some(reader)) = (own, of_own, value.as_ref().and_then(own_reader)) {
        let of_prompts = own.back(of_own, || reader.stages(&prompts), &mut add);
        of_table(reader.embed(&batch.prompt_ids), of_prompts, &mut add);
    }
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

/// Tells `add` the gradient of the table whose rows `embedded` are, unless it is frozen.
fn of_table(embedded: Tensor<2>, gradient: Tensor<2>, add: &mut dyn FnMut(&mut Gradients)) {
    if embedded.is_tracked() {
        add(&mut through(embedded, gradient));
    }
}

/// The gradient of a leaf; zero where the loss does not depend on it.
fn reached(leaf: &Tensor<2>, tape: &mut Gradients) -> Tensor<2> {
    leaf.grad_remove(tape).unwrap_or_else(|| leaf.clone().inner().zeros_like())
}

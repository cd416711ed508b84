//! Keys and values of what was read and said, in blocks that texts with the same beginning share.

use std::sync::Arc;

use super::held::{self, APART};
use super::team::Shared;

/// Tokens of a block.
pub(super) const BLOCK: usize = 16;

/// What a token has in a [`Past`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) layers: usize,
    /// Heads of keys and values.
    pub(super) heads: usize,
    /// Width of a head.
    pub(super) width: usize,
    /// Whether values are held in pairs.
    pub(super) pairs: bool,
}

impl Shape {
    /// In pairs if they are wanted and heads are wide enough.
    pub(super) fn new(layers: usize, heads: usize, width: usize, pairs: bool) -> Self {
        Self { layers, heads, width, pairs: pairs && width.is_multiple_of(2 * APART) }
    }

    /// Places that a token's key, or its value, takes in one head of one layer.
    pub(super) fn places(self) -> usize {
        if self.pairs { self.width / 2 } else { self.width }
    }

    /// Places of a block in one head of one layer: keys, `[coordinate][token]`, a pair being two coordinates of a token; then
    /// values, `[token][coordinate]`, in pairs as by [`held::row`].
    pub(super) fn part(self) -> usize {
        2 * BLOCK * self.places()
    }

    fn block(self) -> usize {
        self.layers * self.heads * self.part()
    }

    /// Where the part of a head of a layer begins.
    pub(super) fn place(self, layer: usize, head: usize) -> usize {
        (layer * self.heads + head) * self.part()
    }
}

/// Keys and values of [`BLOCK`] tokens in all layers and heads: `[layer][head]`, each as [`Shape::part`] says.
pub(super) type Block = Shared<u32>;

/// Keys and values of a text's tokens. A clone shares them until one of the two grows.
#[derive(Clone)]
pub struct Past {
    shape: Shape,
    blocks: Vec<Arc<Block>>,
    length: usize,
}

impl Past {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, blocks: Vec::new(), length: 0 }
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether it is the same text as `other`: no more than looks whether they share their first block.
    pub(super) fn shares(&self, other: &Self) -> bool {
        match (self.blocks.first(), other.blocks.first()) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) && self.length == other.length,
            _ => false,
        }
    }

    /// Makes room for `n` more tokens and counts them: the blocks that they are to be written to are nobody else's.
    pub(super) fn grow(&mut self, n: usize) {
        if n == 0 {
            return;
        }
        let size = self.shape.block();
        if !self.length.is_multiple_of(BLOCK)
            && let Some(last) = self.blocks.last_mut()
            && Arc::get_mut(last).is_none()
        {
            // SAFETY: a block is written only by a computation that borrows its text alone, and none is under way.
            #[expect(unsafe_code, reason = "blocks are shared memory")]
            let values = unsafe { last.read() }.to_vec();
            *last = Arc::new(values.into());
        }
        self.length += n;
        while self.blocks.len() * BLOCK < self.length {
            self.blocks.push(Arc::new(Shared::new(0, size)));
        }
    }

    /// The beginning of at most `n` tokens, in whole blocks.
    #[must_use]
    pub fn beginning(&self, n: usize) -> Self {
        let whole = n.min(self.length) / BLOCK;
        Self { shape: self.shape, blocks: self.blocks[..whole].to_vec(), length: whole * BLOCK }
    }
}

/// Writes the key and value of a token in a head of a layer. A past of a single layer is for one at a time.
///
/// # Safety
/// The text is grown for the token, and nobody reads or writes this token's values in this phase.
#[expect(unsafe_code, reason = "threads share it")]
pub(super) unsafe fn write(past: &Past, layer: usize, head: usize, token: usize, k: &[f32], v: &[f32]) {
    let shape = past.shape;
    let (at, slot) = (shape.place(layer.min(shape.layers - 1), head), token % BLOCK);
    let (keys, values) = (at + slot, at + (BLOCK + slot) * shape.places());
    let block = &past.blocks[token / BLOCK];
    // SAFETY: the block is this text's alone since it grew, and the rest is the caller's promise.
    let put = |place: usize, value: u32| unsafe { block.write(place..place + 1) }[0] = value;
    if shape.pairs {
        k.chunks_exact(2).enumerate().for_each(|(i, k)| put(keys + i * BLOCK, held::pair(k[0], k[1])));
        held::row(v).enumerate().for_each(|(i, v)| put(values + i, v));
    } else {
        k.iter().enumerate().for_each(|(i, k)| put(keys + i * BLOCK, k.to_bits()));
        v.iter().enumerate().for_each(|(i, v)| put(values + i, v.to_bits()));
    }
}

/// The parts of one head of a layer of the blocks that hold the first `tokens` tokens.
///
/// # Safety
/// Nobody writes to these blocks while the parts live.
#[expect(unsafe_code, reason = "threads share it")]
pub(super) unsafe fn parts(past: &Past, layer: usize, head: usize, tokens: usize) -> Vec<&[u32]> {
    let shape = past.shape;
    let at = shape.place(layer.min(shape.layers - 1), head);
    let blocks = past.blocks.iter().take(tokens.div_ceil(BLOCK));
    // SAFETY: the caller's promise.
    blocks.map(|block| &unsafe { block.read() }[at..at + shape.part()]).collect()
}

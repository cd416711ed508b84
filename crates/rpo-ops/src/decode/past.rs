//! Keys and values of what was read and said, in blocks that texts with the same beginning share.

use std::sync::Arc;

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
}

impl Shape {
    /// Values of a block in one head of one layer: keys, `[coordinate][token]`, then values, `[token][coordinate]`.
    pub(super) fn part(self) -> usize {
        2 * BLOCK * self.width
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
pub(super) type Block = Shared<f32>;

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

    pub(super) fn blocks(&self) -> &[Arc<Block>] {
        &self.blocks
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
            self.blocks.push(Arc::new(Shared::new(0.0, size)));
        }
    }

    /// The beginning of at most `n` tokens, in whole blocks.
    #[must_use]
    pub fn beginning(&self, n: usize) -> Self {
        let whole = n.min(self.length) / BLOCK;
        Self { shape: self.shape, blocks: self.blocks[..whole].to_vec(), length: whole * BLOCK }
    }
}

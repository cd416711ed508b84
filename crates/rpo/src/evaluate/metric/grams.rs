//! N-grams counted exactly: tokens become numbers, and an n-gram is the number of its first n - 1 tokens with its last token's.

use std::hash::Hash;

use rustc_hash::{FxBuildHasher, FxHashMap};

/// Sequences whose items are numbers, from 0 in the order in which they first come.
pub struct Numbered {
    /// The sequences.
    pub sequences: Vec<Vec<u32>>,
    /// How many different items they have.
    pub different: usize,
}

/// Numbers the items of sequences.
pub fn numbered<T: Hash + Eq>(sequences: impl IntoIterator<Item = impl IntoIterator<Item = T>>) -> Numbered {
    let mut known: FxHashMap<T, u32> = FxHashMap::with_capacity_and_hasher(256, FxBuildHasher);
    let mut number = |item| {
        let next = known.len() as u32;
        *known.entry(item).or_insert(next)
    };
    let sequences = sequences.into_iter().map(|items| items.into_iter().map(&mut number).collect()).collect();
    Numbered { sequences, different: known.len() }
}

/// The n-grams of these sequences of tokens, for n = 1, 2, ..., `orders`.
pub fn grams(tokens: Numbered, orders: usize) -> Vec<Numbered> {
    let mut all = vec![tokens];
    for n in 2..=orders {
        let shorter = all[n - 2].sequences.iter().zip(&all[0].sequences);
        let pair = |(&first, &last): (&u32, &u32)| u64::from(first) << 32 | u64::from(last);
        let longer = numbered(shorter.map(|(grams, tokens)| grams.iter().zip(tokens.iter().skip(n - 1)).map(pair)));
        all.push(longer);
    }
    all
}

impl Numbered {
    /// How often each item is in each sequence.
    pub fn counts(&self) -> Vec<Vec<u32>> {
        let count = |sequence: &Vec<u32>| {
            let mut counts = vec![0; self.different];
            sequence.iter().for_each(|&item| counts[item as usize] += 1);
            counts
        };
        self.sequences.iter().map(count).collect()
    }
}

/// How many items two sequences have in common, as often as both have them, by the counts of items.
pub fn common(a: &[u32], b: &[u32]) -> u32 {
    a.iter().zip(b).map(|(&a, &b)| a.min(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bigrams_of_two_sequences() {
        let all = grams(numbered(["a b a b".split(' '), "b a".split(' ')]), 5);
        assert_eq!(all[0].sequences, [vec![0, 1, 0, 1], vec![1, 0]]);
        // ab ba ab, and ba.
        assert_eq!((all[1].sequences.clone(), all[1].different), (vec![vec![0, 1, 0], vec![1]], 2));
        assert_eq!(all[1].counts(), [[2, 1], [0, 1]]);
        assert_eq!(common(&[2, 1], &[0, 1]), 1);
        assert_eq!((all[3].sequences[0].len(), all[3].sequences[1].len(), all[4].different), (1, 0, 0));
    }
}

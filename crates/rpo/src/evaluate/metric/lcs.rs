//! Longest common subsequences of token numbers, 64 places at a time (Hyyrö 2004, "Bit-parallel LCS-length computation
//! revisited").

/// Finds longest common subsequences of sequences whose tokens are less than a number.
pub struct Finder {
    /// By token: its places among 64 of `a`; empty between two searches.
    masks: Vec<u64>,
    /// By token of `b`, what is carried into the next 64 places of `a`.
    carries: Vec<bool>,
    /// For 64 places of `a` after each token of `b`: where the length does not grow with the token of `a` (bit 1).
    rows: Vec<u64>,
}

impl Finder {
    /// For tokens less than `different`.
    pub fn new(different: usize) -> Self {
        Self { masks: vec![0; different], carries: Vec::new(), rows: Vec::new() }
    }

    /// The length of a longest common subsequence.
    pub fn length(&mut self, a: &[u32], b: &[u32]) -> usize {
        self.search(a, b, |_| ())
    }

    /// Marks the places of `a` that are in a longest common subsequence with `b`: the one that rouge-score finds, going back from
    /// the ends and, where both ways are as good, towards the beginning of `a`.
    pub fn mark(&mut self, a: &[u32], b: &[u32], marked: &mut [bool]) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        self.search(a, b, |row| rows.push(row));
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            // Where the length grows with a's token, it is as long without b's.
            let grows = rows[(i - 1) / 64 * b.len() + j - 1] >> ((i - 1) % 64) & 1 == 0;
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                marked[i] = true;
            } else if grows {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        self.rows = rows;
    }

    /// Goes through the table of lengths; `row` hears what `rows` holds. Returns the last length.
    fn search(&mut self, a: &[u32], b: &[u32], mut row: impl FnMut(u64)) -> usize {
        self.carries.clear();
        self.carries.resize(b.len(), false);
        let mut length = 0;
        for block in a.chunks(64) {
            block.iter().enumerate().for_each(|(bit, &token)| self.masks[token as usize] |= 1 << bit);
            let mut same = u64::MAX;
            for (&token, carry) in b.iter().zip(&mut self.carries) {
                let mask = self.masks[token as usize];
                let (sum, first) = same.overflowing_add(same & mask);
                let (sum, second) = sum.overflowing_add(u64::from(*carry));
                *carry = first || second;
                same = sum | (same & !mask);
                row(same);
            }
            length += same.count_zeros() as usize;
            block.iter().for_each(|&token| self.masks[token as usize] = 0);
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as it is written in books.
    fn plain(a: &[u32], b: &[u32]) -> Vec<Vec<usize>> {
        let mut t = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..a.len() {
            for j in 0..b.len() {
                t[i + 1][j + 1] = if a[i] == b[j] { t[i][j] + 1 } else { t[i][j + 1].max(t[i + 1][j]) };
            }
        }
        t
    }

    #[test]
    fn lengths_and_places_of_the_plain_table() {
        let some = |seed: usize, n: usize, different: usize| -> Vec<u32> {
            let next = |x: usize| (x * 1_103_515_245 + 12_345) % 2_147_483_648;
            std::iter::successors(Some(next(seed)), |&x| Some(next(x)))
                .take(n)
                .map(|x| (x / 65_536 % different) as u32)
                .collect()
        };
        for (seed, n, m, different) in [(1, 5, 7, 3), (2, 64, 64, 4), (3, 130, 65, 9), (4, 200, 300, 40), (5, 0, 3, 2)]
        {
            let (a, b) = (some(seed, n, different), some(seed + 9, m, different));
            let t = plain(&a, &b);
            let mut finder = Finder::new(different);
            assert_eq!(finder.length(&a, &b), t[n][m]);
            let (mut i, mut j, mut places) = (n, m, vec![false; n]);
            while i > 0 && j > 0 {
                if a[i - 1] == b[j - 1] {
                    (i, j) = (i - 1, j - 1);
                    places[i] = true;
                } else if t[i][j - 1] > t[i - 1][j] {
                    j -= 1;
                } else {
                    i -= 1;
                }
            }
            let mut marked = vec![false; n];
            finder.mark(&a, &b, &mut marked);
            assert_eq!(marked, places);
        }
    }
}

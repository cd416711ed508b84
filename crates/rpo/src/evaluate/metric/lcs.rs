//! Longest common subsequences of token numbers, 64 places at a time (Hyyrö 2004, "Bit-parallel LCS-length computation
//! revisited").

/// The length of a longest common subsequence. Tokens are less than `different`.
pub fn length(a: &[u32], b: &[u32], different: usize) -> usize {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    table(short, long, different, |_| ())
}

/// Marks the places of `a` that are in a longest common subsequence with `b`: the one that rouge-score finds, going back from
/// the ends and, where both ways are as good, towards the beginning of `a`.
pub fn mark(a: &[u32], b: &[u32], different: usize, marked: &mut [bool]) {
    let mut rows = Vec::with_capacity(a.len().div_ceil(64) * b.len());
    table(a, b, different, |row| rows.push(row));
    let (mut i, mut j) = (a.len(), b.len());
    while i > 0 && j > 0 {
        // Not whether it is longer with `b`'s last, but whether it is shorter without `a`'s last: one of the two holds it.
        let grew = rows[(i - 1) / 64 * b.len() + j - 1] >> ((i - 1) % 64) & 1 == 0;
        if a[i - 1] == b[j - 1] {
            (i, j) = (i - 1, j - 1);
            marked[i] = true;
        } else if grew {
            j -= 1;
        } else {
            i -= 1;
        }
    }
}

/// Goes through the table of lengths, of which `row` hears for 64 tokens of `a` after each token of `b` where the length
/// does not grow with a token of `a` (bit 1). Returns the last length.
fn table(a: &[u32], b: &[u32], different: usize, mut row: impl FnMut(u64)) -> usize {
    let mut masks = vec![0u64; different];
    let mut carries = vec![false; b.len()];
    let mut length = 0;
    for block in a.chunks(64) {
        block.iter().enumerate().for_each(|(bit, &token)| masks[token as usize] |= 1 << bit);
        let mut same = u64::MAX;
        for (&token, carry) in b.iter().zip(&mut carries) {
            let mask = masks[token as usize];
            let (sum, first) = same.overflowing_add(same & mask);
            let (sum, second) = sum.overflowing_add(u64::from(*carry));
            *carry = first || second;
            same = sum | (same & !mask);
            row(same);
        }
        length += same.count_zeros() as usize;
        block.iter().for_each(|&token| masks[token as usize] = 0);
    }
    length
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
            assert_eq!(length(&a, &b, different), t[n][m]);
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
            mark(&a, &b, different, &mut marked);
            assert_eq!(marked, places);
        }
    }
}

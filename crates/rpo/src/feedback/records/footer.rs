//! What the footer of a Parquet file announces. Its reader follows columns that lie in each other without a bound, so that two megabytes
//! could overflow the stack, and passes one by one over values that take no bytes, of which a few bytes announce billions; therefore
//! the footer is judged first.
//!
//! It is a Thrift struct in the compact protocol (`thrift/doc/specs/thrift-compact-protocol.md`): its field 2 is the schema, the
//! tree of columns in depth-first order, in which field 5 of each element is the number of its children (`parquet.thrift`).

use super::Problem;

/// So deep columns may lie in each other.
const DEEPEST: usize = 100;
/// So deep any other part may, which is what the reader skips at most.
const SKIPPED: usize = 64;
const SCHEMA: i64 = 2;
const CHILDREN: i64 = 5;

/// Types of the compact protocol that are told apart here.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const UUID: u8 = 13;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// Checks the bytes of a footer.
///
/// # Errors
/// If it is not whole, or its columns lie deeper in each other than [`DEEPEST`].
pub(super) fn check(footer: &[u8]) -> Result<(), Problem> {
    let mut reader = Thrift { bytes: footer };
    let (mut deepest, mut open) = (0, Vec::new());
    let whole = reader.fields(|reader, field, kind| match (field, kind) {
        (SCHEMA, LIST) => reader.list(|reader, _| {
            let mut children = 0;
            reader.fields(|reader, field, kind| match field {
                CHILDREN => reader.zigzag().map(|n| children = n),
                _ => reader.skip(kind, SKIPPED),
            })?;
            while open.pop_if(|left| *left == 0).is_some() {}
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            open.push(children.max(0));
            deepest = deepest.max(open.len());
            (deepest <= DEEPEST).then_some(())
        }),
        _ => reader.skip(kind, SKIPPED),
    });
    match whole {
        _ if deepest > DEEPEST => Err(format!(
            "more than {DEEPEST} columns lie in each other; write what is needed of them as columns of their own"
        )),
        None => Err("a damaged Parquet file (its footer is not whole); get it once more".into()),
        Some(()) => Ok(()),
    }
}

/// Bytes in the compact protocol. Nothing is given where they end or mean nothing.
struct Thrift<'a> {
    bytes: &'a [u8],
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn past(&mut self, n: usize) -> Option<()> {
        self.bytes = self.bytes.get(n..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let n = self.varint()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// Gives `each` the number and the type of every field of a struct, whose value it reads.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, i64, u8) -> Option<()>) -> Option<()> {
        let mut field = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            field = match head >> 4 {
                0 => self.zigzag()?,
                more => field.checked_add(i64::from(more))?,
            };
            each(self, field, head & 0x0f)?;
        }
    }

    /// Gives `each` the type of every element of a list, which it reads; every one takes a byte at least.
    fn list(&mut self, mut each: impl FnMut(&mut Self, u8) -> Option<()>) -> Option<()> {
        let head = self.byte()?;
        let length = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        (0..length).try_for_each(|_| each(self, head & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        // In a list a truth value has a byte, in a field none.
        let element = |reader: &mut Self, kind| match kind {
            TRUE | FALSE => reader.past(1),
            kind => reader.skip(kind, depth),
        };
        match kind {
            TRUE | FALSE => Some(()),
            BYTE => self.past(1),
            4..=6 => self.varint().map(drop),
            DOUBLE => self.past(8),
            UUID => self.past(16),
            BINARY => {
                let length = self.varint()?;
                self.past(usize::try_from(length).ok()?)
            }
            LIST | SET => self.list(element),
            MAP => match self.varint()? {
                0 => Some(()),
                length => {
                    let kinds = self.byte()?;
                    (0..length).try_for_each(|_| element(self, kinds >> 4).and_then(|()| element(self, kinds & 0x0f)))
                }
            },
            STRUCT => self.fields(|reader, _, kind| reader.skip(kind, depth)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element called `a` with so many children.
    fn element(children: u8) -> Vec<u8> {
        vec![0x48, 1, b'a', 0x15, children << 1, 0]
    }

    /// A footer with a version, this schema and a number of rows.
    fn footer(elements: &[Vec<u8>]) -> Vec<u8> {
        assert!(elements.len() >= 15 && elements.len() < 1 << 14, "a long list");
        let n = elements.len();
        let head = [0x15, 2, 0x19, 0xfc, n as u8 | 0x80, (n >> 7) as u8];
        [&head[..], &elements.concat(), &[0x16, 0, 0]].concat()
    }

    #[test]
    fn columns_beside_each_other_are_not_deep_and_those_in_each_other_are() {
        let root = |n| vec![element(n)];
        let beside: Vec<_> = root(50).into_iter().chain((0..50).flat_map(|_| [element(1), element(0)])).collect();
        assert_eq!(check(&footer(&beside)), Ok(()));
        let within = |n: usize| footer(&(0..n).map(|_| element(1)).chain([element(0)]).collect::<Vec<_>>());
        assert_eq!(check(&within(DEEPEST - 1)), Ok(()));
        for n in [DEEPEST, 5000] {
            let problem = check(&within(n)).expect_err("deep");
            assert!(problem.contains("more than 100 columns lie in each other"), "{problem}");
            // A schema that comes twice, one of which is harmless.
            let twice = [&footer(&beside)[..], &within(n)[2..]].concat();
            assert_eq!(check(&twice), Ok(()), "behind the end");
            let mut both = footer(&beside);
            both.truncate(both.len() - 3);
            both.extend([&[0x09, 4][..], &within(n)[3..]].concat());
            check(&both).expect_err("deep");
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_end_or_without_end() {
        let whole = footer(&(0..20).map(|_| element(1)).collect::<Vec<_>>());
        assert_eq!(check(&whole), Ok(()));
        for cut in 0..whole.len() {
            assert!(check(&whole[..cut]).is_err_and(|said| said.contains("its footer is not whole")), "{cut}");
        }
        // Lists in lists, structs in structs, nonsense, billions of truth values and of identifiers.
        let [truths, uuids] = [0xf1, 0xfd].map(|head| [0x19, head, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        for bytes in [&[0x19; 4000][..], &[0x1c; 4000], &[0xff; 40], &truths, &uuids] {
            check(bytes).expect_err("not whole");
        }
    }
}

//! Lines of bounded length, out of a stream of bytes.

/// Longest line in bytes. QEMU's answers to what is asked here have less than 200.
pub(super) const LINE_MAX: usize = 64 << 10;

/// Received bytes that are not yet taken as lines.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// Up to here no end of a line was found.
    searched: usize,
}

/// A line is longer than [`LINE_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl LineBuffer {
    /// Adds what was received. Lines must be taken before more is added.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.bytes.len().saturating_add(bytes.len()) > LINE_MAX && !bytes.contains(&b'\n') {
            return Err(TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes the next whole line, without its end.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.get(self.searched..).unwrap_or_default();
        let Some(found) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let tail = self.bytes.split_off(self.searched + found + 1);
        let mut line = std::mem::replace(&mut self.bytes, tail);
        self.searched = 0;
        line.pop();
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_a_line_without_end() {
        let mut buffer = LineBuffer::default();
        buffer.add(&vec![b'x'; LINE_MAX]).unwrap();
        assert_eq!(buffer.take(), None);
        assert_eq!(buffer.add(b"x"), Err(TooLong));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces(
            text in "[ab\n]{0,200}",
            sizes in prop::collection::vec(1_usize..9, 1..50),
        ) {
            let mut buffer = LineBuffer::default();
            let (mut rest, mut found, mut sizes) = (text.as_bytes(), Vec::new(), sizes.iter().cycle());
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                buffer.add(piece).unwrap();
                found.extend(std::iter::from_fn(|| buffer.take()));
                rest = tail;
            }
            let mut expected: Vec<&str> = text.split('\n').collect();
            expected.pop();
            let found: Vec<String> = found.into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

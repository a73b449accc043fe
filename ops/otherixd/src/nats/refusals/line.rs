//! A line of a log, in bounded memory: of a long one, the beginning and the end.

/// Bytes of a long line's beginning and end that are kept.
const HEAD: usize = 512;
const TAIL: usize = 32 << 10;

/// A line, or the beginning and the end of a long one. The beginning is empty if it was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) head: &'a str,
    /// The same text as `head`, if the line is not long.
    pub(super) tail: &'a str,
}

/// The line that is being read.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Whether bytes between them were left out.
    is_long: bool,
}

impl LineBuffer {
    /// Adds a piece of the line.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let space = if self.is_long { 0 } else { HEAD - self.head.len() };
        let (to_head, to_tail) = piece.split_at(piece.len().min(space));
        self.head.extend_from_slice(to_head);
        self.tail.extend_from_slice(to_tail);
        if self.tail.len() > 2 * TAIL {
            self.shorten();
        }
    }

    /// Something was skipped: the next line is another one, and its beginning is not known.
    pub(super) fn skip_rest(&mut self) {
        *self = Self { is_long: true, ..Self::default() };
    }

    /// Adds the last piece of the line, and passes the line on.
    pub(super) fn end(&mut self, piece: &[u8], each: impl FnOnce(&Line<'_>)) {
        self.push(piece);
        if self.tail.len() > TAIL {
            self.shorten();
        }
        let Self { mut head, tail, is_long } = std::mem::take(self);
        if is_long {
            let (head, tail) = (String::from_utf8_lossy(&head), String::from_utf8_lossy(&tail));
            return each(&Line { head: &head, tail: &tail });
        }
        head.extend(tail);
        let whole = String::from_utf8_lossy(&head);
        each(&Line { head: &whole, tail: &whole });
    }

    fn shorten(&mut self) {
        self.tail.drain(..self.tail.len() - TAIL);
        self.is_long = true;
    }
}

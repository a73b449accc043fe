//! Attributes of netlink messages, as bytes.

/// Set on attributes that hold attributes.
const NESTED: u16 = 0x8000;

/// Attributes one after the other.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds one. `value` has at most 65,531 bytes; a longer one would be cut off, and no value of ours is.
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let value = value.get(..usize::from(u16::MAX) - 4).unwrap_or(value);
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds one that holds attributes.
    pub(super) fn nest(&mut self, kind: u16, inner: Self) -> &mut Self {
        self.put(kind | NESTED, &inner.0)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

//! Bytes whose bits are known in part, and the answers that they give.

use serde::{Deserialize, Serialize};

/// An answer that may be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
    Maybe,
}

impl Answer {
    /// The answer to the opposite question, if `is_inverted`.
    #[must_use]
    pub fn inverted(self, is_inverted: bool) -> Self {
        match self {
            Self::Yes if is_inverted => Self::No,
            Self::No if is_inverted => Self::Yes,
            Self::Yes | Self::No | Self::Maybe => self,
        }
    }

    /// Whether both are so.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::Maybe, _) | (_, Self::Maybe) => Self::Maybe,
        }
    }
}

impl From<bool> for Answer {
    fn from(is_so: bool) -> Self {
        if is_so { Self::Yes } else { Self::No }
    }
}

/// A byte, and which of its bits are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Byte {
    /// Unknown bits are 0.
    value: u8,
    known: u8,
}

impl Byte {
    /// Nothing of it is known.
    pub const UNKNOWN: Self = Self { value: 0, known: 0 };

    /// Returns a byte that is known.
    pub const fn new(value: u8) -> Self {
        Self { value, known: u8::MAX }
    }

    /// Returns the value, if all of it is known.
    pub fn get(self) -> Option<u8> {
        (self.known == u8::MAX).then_some(self.value)
    }

    /// Whether it may be this value.
    fn may_be(self, value: u8) -> bool {
        (self.value ^ value) & self.known == 0
    }

    fn masked(self, mask: u8, xor: u8) -> Self {
        let known = self.known | !mask;
        Self { value: ((self.value & mask) ^ xor) & known, known }
    }

    /// What is known of a byte that is one of the two.
    fn joined(self, other: Self) -> Self {
        let known = self.known & other.known & !(self.value ^ other.value);
        Self { value: self.value & known, known }
    }
}

/// Bytes whose bits are known in part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(Vec<Byte>);

impl Bytes {
    /// Returns bytes of which nothing is known.
    pub fn unknown(length: usize) -> Self {
        Self(vec![Byte::UNKNOWN; length])
    }

    /// Returns bytes that are known.
    pub fn known(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().map(Byte::new).collect())
    }

    /// Returns the name of a link, as the kernel compares it.
    pub fn name(name: &str) -> Self {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(16, 0);
        Self::known(&bytes)
    }

    /// Appends bytes that may be known in part.
    pub fn extend(&mut self, bytes: impl IntoIterator<Item = Byte>) {
        self.0.extend(bytes);
    }

    /// Iterates over the bytes, in the order of the packet.
    pub fn iter(&self) -> impl Iterator<Item = Byte> + '_ {
        self.0.iter().copied()
    }

    /// Returns `length` bytes from an offset on; what lies behind the end is unknown.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        let bytes = self.iter().skip(offset).chain(std::iter::repeat(Byte::UNKNOWN));
        Self(bytes.take(length).collect())
    }

    /// Returns the value, if all of it is known.
    pub fn get(&self) -> Option<Vec<u8>> {
        self.iter().map(Byte::get).collect()
    }

    /// Returns a number in the host's byte order, if it is known.
    pub fn number(&self) -> Option<u32> {
        self.get()?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// The same bytes, to be compared.
    pub fn as_slice(&self) -> &[Byte] {
        &self.0
    }

    /// Whether it is equal to this value.
    pub fn is(&self, value: &[u8]) -> Answer {
        is(&self.0, value)
    }

    /// Whether it is at least `low` and at most `high`.
    pub fn is_within(&self, low: &[u8], high: &[u8]) -> Answer {
        is_within(&self.0, low, high)
    }

    /// Returns `(self & mask) ^ xor`.
    #[must_use]
    pub fn masked(&self, mask: &[u8], xor: &[u8]) -> Self {
        let bits = mask.iter().zip(xor);
        Self(self.0.iter().zip(bits).map(|(byte, (mask, xor))| byte.masked(*mask, *xor)).collect())
    }

    /// Returns it with the bits that the mask selects replaced by those of `other`.
    #[must_use]
    pub fn replaced(&self, mask: &[u8], other: &Self) -> Self {
        let bytes = self.0.iter().zip(mask).zip(other.iter()).map(|((byte, mask), other)| Byte {
            value: (byte.value & !mask) | (other.value & mask),
            known: (byte.known & !mask) | (other.known & mask),
        });
        Self(bytes.collect())
    }

    /// Returns it with the bytes of each number of this size in reverse order.
    #[must_use]
    pub fn swapped(&self, size: usize) -> Self {
        Self(self.0.chunks(size.max(1)).flat_map(|number| number.iter().rev().copied()).collect())
    }

    /// What is known of a value that is one of the two.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(other.iter()).map(|(one, other)| one.joined(other)).collect())
    }
}

/// Whether bytes are equal to this value.
pub fn is(bytes: &[Byte], value: &[u8]) -> Answer {
    let pairs = || bytes.iter().zip(value);
    if !pairs().all(|(byte, value)| byte.may_be(*value)) {
        Answer::No
    } else if pairs().all(|(byte, _)| byte.get().is_some()) {
        Answer::Yes
    } else {
        Answer::Maybe
    }
}

/// Whether bytes are at least `low` and at most `high`.
pub fn is_within(bytes: &[Byte], low: &[u8], high: &[u8]) -> Answer {
    // The least and the greatest value that they may have.
    let least = || bytes.iter().map(|byte| byte.value);
    let greatest = || bytes.iter().map(|byte| byte.value | !byte.known);
    let (low, high) = (|| low.iter().copied(), || high.iter().copied());
    if greatest().lt(low()) || least().gt(high()) {
        Answer::No
    } else if least().ge(low()) && greatest().le(high()) {
        Answer::Yes
    } else {
        Answer::Maybe
    }
}

/// The mark of a packet or connection, and which of its bits are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Unknown bits are 0.
    value: u32,
    known: u32,
}

impl Mark {
    /// The mark that packets and connections begin with.
    pub const NONE: Self = Self { value: 0, known: u32::MAX };
    /// Nothing of it is known.
    pub const UNKNOWN: Self = Self { value: 0, known: 0 };

    /// Whether `mark & mask` is this value.
    pub fn is(self, value: u32, mask: u32) -> Answer {
        let known = self.known | !mask;
        if ((self.value & mask) ^ value) & known != 0 {
            Answer::No
        } else if known == u32::MAX {
            Answer::Yes
        } else {
            Answer::Maybe
        }
    }

    /// Returns `(mark & !mask) ^ xor`.
    #[must_use]
    pub fn changed(self, mask: u32, xor: u32) -> Self {
        let known = self.known | mask;
        Self { value: ((self.value & !mask) ^ xor) & known, known }
    }

    /// Returns `(mark & !mask) ^ (other & other_mask)`.
    #[must_use]
    pub fn combined(self, mask: u32, other: Self, other_mask: u32) -> Self {
        let known = (self.known | mask) & (other.known | !other_mask);
        Self { value: ((self.value & !mask) ^ (other.value & other_mask)) & known, known }
    }

    /// What is known of a mark that is one of the two.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        let known = self.known & other.known & !(self.value ^ other.value);
        Self { value: self.value & known, known }
    }

    /// Returns the four bytes, in the host's byte order.
    pub fn bytes(self) -> Bytes {
        let pairs = self.value.to_ne_bytes().into_iter().zip(self.known.to_ne_bytes());
        Bytes(pairs.map(|(value, known)| Byte { value, known }).collect())
    }

    /// Returns the mark with these bytes; what is missing is unknown.
    pub fn of(bytes: &[Byte]) -> Self {
        let (mut value, mut known) = ([0; 4], [0; 4]);
        for ((value, known), byte) in value.iter_mut().zip(&mut known).zip(bytes) {
            (*value, *known) = (byte.value, byte.known);
        }
        Self { value: u32::from_ne_bytes(value), known: u32::from_ne_bytes(known) }
    }
}

/// Bytes of a rule or set, written in hexadecimal in the case folders of tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Data(pub Vec<u8>);

impl Serialize for Data {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not hexadecimal")))?;
        let bytes = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit));
        Ok(Self(bytes.map(|byte| u8::try_from(byte).unwrap_or_default()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half_known() -> Bytes {
        Bytes::known(&[10, 20]).replaced(&[0, 0xff], &Bytes::unknown(2))
    }

    #[test]
    fn comparisons_of_what_is_known_in_part_may_be_uncertain() {
        let known = Bytes::known(&[10, 20]);
        assert_eq!((known.is(&[10, 20]), known.is(&[10, 21]), known.is(&[10])), (Answer::Yes, Answer::No, Answer::Yes));
        assert_eq!((half_known().is(&[10, 20]), half_known().is(&[11, 20])), (Answer::Maybe, Answer::No));
        assert_eq!(half_known().masked(&[0xff, 0], &[0, 0]).is(&[10, 0]), Answer::Yes);
        assert_eq!(half_known().is_within(&[10, 0], &[10, 255]), Answer::Yes);
        assert_eq!(half_known().is_within(&[10, 0], &[10, 3]), Answer::Maybe);
        assert_eq!(half_known().is_within(&[11, 0], &[12, 0]), Answer::No);
        assert_eq!(half_known().slice(1, 2).get(), None);
    }

    #[test]
    fn marks_are_changed_under_masks() {
        let mark = Mark::NONE.changed(0xff, 0x0f);
        assert_eq!((mark.is(0x0f, 0xff), mark.is(0, 0xf0), mark.is(1, 0x0f)), (Answer::Yes, Answer::Yes, Answer::No));
        assert_eq!(Mark::NONE.combined(u32::MAX, mark, 0x0c).is(0x0c, u32::MAX), Answer::Yes);
        let joined = mark.joined(Mark::NONE);
        assert_eq!(Mark::of(joined.bytes().as_slice()), joined);
        assert_eq!((joined.is(1, 1), joined.is(0, 0xf0)), (Answer::Maybe, Answer::Yes));
    }

    #[test]
    fn data_is_written_in_hexadecimal() {
        let data = Data(vec![10, 255]);
        assert_eq!(serde_json::to_string(&data).unwrap(), "\"0aff\"");
        assert_eq!(serde_json::from_str::<Data>("\"0aff\"").unwrap(), data);
        serde_json::from_str::<Data>("\"xx\"").unwrap_err();
    }
}

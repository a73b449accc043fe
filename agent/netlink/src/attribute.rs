//! Attributes of a received message (`struct nlattr` of linux/netlink.h).

/// `struct nlattr`: length and type.
pub(crate) const ATTRIBUTE_HEADER_LEN: usize = 4;

/// `NLA_TYPE_MASK`: without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;

/// An attribute of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Without the flag bits.
    pub kind: u16,
    /// Without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The payload as a number or an array, if it has exactly that size.
    #[must_use]
    pub fn array<const N: usize>(&self) -> Option<[u8; N]> {
        self.value.try_into().ok()
    }

    /// The attributes nested in this one.
    pub fn nested(&self) -> impl Iterator<Item = Result<Attribute<'a>, MalformedAttribute>> + use<'a> {
        attributes(self.value)
    }
}

/// The length of an attribute is below that of its header or exceeds the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink attribute")]
pub struct MalformedAttribute;

/// The attributes of a payload, in order. The iterator ends after the first malformed attribute.
pub fn attributes(payload: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, MalformedAttribute>> + use<'_> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = parse(rest);
        rest = next.map_or(&[], |(_, rest)| rest);
        Some(next.map(|(attribute, _)| attribute).ok_or(MalformedAttribute))
    })
}

/// The first attribute of a type.
#[must_use]
pub fn find(payload: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(payload).map_while(Result::ok).find(|attribute| attribute.kind == kind)
}

fn parse(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let ([a, b, c, d], _) = bytes.split_first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
    let length = usize::from(u16::from_ne_bytes([*a, *b]));
    let kind = u16::from_ne_bytes([*c, *d]) & TYPE_MASK;
    let value = bytes.get(ATTRIBUTE_HEADER_LEN..length)?;
    // The last attribute may lack its padding.
    Some((Attribute { kind, value }, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

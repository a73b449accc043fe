//! The Internet checksum (RFC 1071): the ones' complement sum of 16-bit words.

/// The ones' complement sum of big-endian 16-bit words, folded to 16 bits; an odd last byte is padded with zero. The
/// sums of parts of even length may be added.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    // The byte order only matters for the result (RFC 1071, section 2), so this adds native 64-bit words, with the
    // halves in separate accumulators against overflow, in a form that the compiler vectorizes.
    let (blocks, rest) = bytes.as_chunks::<32>();
    let (mut low, mut high) = ([0_u64; 4], [0_u64; 4]);
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for ((word, low), high) in words.iter().zip(&mut low).zip(&mut high) {
            let word = u64::from_ne_bytes(*word);
            *low += word & 0xffff_ffff;
            *high += word >> 32;
        }
    }
    let mut total: u64 = low.iter().sum::<u64>() + high.iter().sum::<u64>();
    let (pairs, last) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = last {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u64::from(u16::from_be_bytes(fold(total).to_ne_bytes()))
}

/// Folds a sum to 16 bits.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The checksum of data with this sum.
pub(super) fn checksum(sum: u64) -> u16 {
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn simple_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0_u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        fold(sum)
    }

    proptest! {
        #[test]
        fn equals_a_simple_sum(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            // 0 and 0xffff are the same number in ones' complement.
            prop_assert_eq!(fold(sum(&bytes)) % 0xffff, simple_sum(&bytes) % 0xffff);
        }
    }

    #[test]
    fn the_example_of_rfc_1071_is_correct() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(fold(sum(&[0xff; 65_536])), 0xffff);
    }
}

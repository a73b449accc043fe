//! Parts of the text formats.

/// Parses a decimal number without sign and leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Whether a text has a control character that a note must not have: all below U+0020 but newline.
pub(crate) fn has_control_character(text: &str) -> bool {
    text.bytes().any(|byte| byte < b' ' && byte != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_canonical() {
        assert_eq!(["0", "7", "18446744073709551615"].map(decimal), [Some(0), Some(7), Some(u64::MAX)]);
        for text in ["", "00", "01", "+1", "-0", " 1", "1 ", "1_0", "0x1", "18446744073709551616", "\u{661}"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}

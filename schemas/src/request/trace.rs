//! W3C trace contexts.

/// Whether a text is a W3C trace context of version 00.
pub fn is_traceparent(text: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let is_id =
        |text: &str, digits: usize| text.len() == digits && is_hex(text) && text.bytes().any(|byte| byte != b'0');
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else { return false };
    *version == "00" && is_id(trace, 32) && is_id(span, 16) && flags.len() == 2 && is_hex(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_has_two_ids_and_flags() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "any text that has no more than fifty-five characters",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}

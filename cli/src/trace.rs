//! The W3C trace context of a command: it is recorded in the events that result from it, from the decision to the
//! nodes' outcomes.

use std::sync::OnceLock;

use otherix_runtime::{Runtime, SystemRuntime};

/// The environment variable with the context of the caller, as other tools use it.
const VARIABLE: &str = "TRACEPARENT";

/// The context of this process: that of the environment, or a new one.
pub(crate) fn context() -> String {
    static CONTEXT: OnceLock<String> = OnceLock::new();
    let context = || std::env::var(VARIABLE).ok().filter(|text| is_context(text)).unwrap_or_else(generate);
    CONTEXT.get_or_init(context).clone()
}

/// Version 00, sampled.
fn generate() -> String {
    let [high, low, span] = [(); 3].map(|()| SystemRuntime.random_u64());
    // Zero is not an id.
    format!("00-{:032x}-{:016x}-01", (u128::from(high) << 64 | u128::from(low)).max(1), span.max(1))
}

/// Whether a text is a context of version 00.
fn is_context(text: &str) -> bool {
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
    fn new_contexts_are_valid_and_differ() {
        let (one, other) = (generate(), generate());
        assert!(is_context(&one) && is_context(&other) && one != other, "{one} {other}");
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert!(is_context(good));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_context(bad), "{bad}");
        }
    }
}

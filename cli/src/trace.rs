//! The W3C trace context of a command: it is recorded in the events that result from it, from the decision to the
//! nodes' outcomes.

use std::sync::OnceLock;

use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::request::is_traceparent;

/// The environment variable with the context of the caller, as other tools use it.
const VARIABLE: &str = "TRACEPARENT";

/// The context of this process: that of the environment, or a new one.
pub(crate) fn context() -> String {
    static CONTEXT: OnceLock<String> = OnceLock::new();
    let context = || std::env::var(VARIABLE).ok().filter(|text| is_traceparent(text)).unwrap_or_else(generate);
    CONTEXT.get_or_init(context).clone()
}

/// Version 00, sampled.
fn generate() -> String {
    let [high, low, span] = [(); 3].map(|()| SystemRuntime.random_u64());
    // Zero is not an id.
    format!("00-{:032x}-{:016x}-01", (u128::from(high) << 64 | u128::from(low)).max(1), span.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_contexts_are_valid_and_differ() {
        let (one, other) = (generate(), generate());
        assert!(is_traceparent(&one) && is_traceparent(&other) && one != other, "{one} {other}");
    }
}

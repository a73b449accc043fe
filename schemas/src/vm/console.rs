//! The consoles of VMs: requests that the control plane passes on to the VM's node, and what the node answers.
//!
//! Nothing is pushed: a client asks for what was written after a position, and waits for it (docs/adr/0049).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::MachinePhase;
use crate::id::VmId;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType};
use crate::violations::Violations;

/// The requests about consoles.
pub(crate) const CONSOLE_REQUESTS: &[Request] = &[
    Request::of::<ReadConsole>(),
    Request::of::<OpenConsole>(),
    Request::of::<WriteConsole>(),
    Request::of::<CloseConsole>(),
];

/// The most output of an answer, in bytes.
pub const CONSOLE_OUTPUT_MAX: usize = 96 << 10;

/// The most input of a request, in bytes.
pub const CONSOLE_INPUT_MAX: usize = 4096;

/// The longest that a request may wait for output, in milliseconds.
pub const CONSOLE_WAIT_MAX_MS: u32 = 10_000;

/// How long a session lasts after the last request of its client, in milliseconds.
pub const CONSOLE_SESSION_MS: u32 = 15_000;

/// Longest [`ConsoleCursor`], in bytes.
const CURSOR_MAX: usize = 96;

/// A position in the log of a console, as the node has told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-z.-]{1,96}$"))]
pub struct ConsoleCursor(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the `next` of an earlier answer")]
pub struct ConsoleCursorError;

impl ConsoleCursor {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ConsoleCursor {
    type Error = ConsoleCursorError;
    fn try_from(text: String) -> Result<Self, ConsoleCursorError> {
        let is_valid = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'.' | b'-');
        let is_valid = (1..=CURSOR_MAX).contains(&text.len()) && text.bytes().all(is_valid);
        if is_valid { Ok(Self(text)) } else { Err(ConsoleCursorError) }
    }
}

impl From<ConsoleCursor> for String {
    fn from(cursor: ConsoleCursor) -> Self {
        cursor.0
    }
}

/// Bytes, in padded base64.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9+/]*={0,2}$"))]
pub struct ConsoleBytes(pub Vec<u8>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be padded base64")]
pub struct ConsoleBytesError;

impl TryFrom<String> for ConsoleBytes {
    type Error = ConsoleBytesError;
    fn try_from(text: String) -> Result<Self, ConsoleBytesError> {
        STANDARD.decode(text).map(Self).map_err(|_| ConsoleBytesError)
    }
}

impl From<ConsoleBytes> for String {
    fn from(bytes: ConsoleBytes) -> Self {
        STANDARD.encode(bytes.0)
    }
}

impl std::fmt::Debug for ConsoleBytes {
    /// Without the bytes: they may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConsoleBytes({} bytes)", self.0.len())
    }
}

/// Asks for what a VM has written to its console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsoleRead {
    pub id: VmId,
    /// Where to begin: the `next` of an earlier answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ConsoleCursor>,
    /// Without `after`: how many of the last bytes to begin with; all that are kept (1 to 2 MiB) if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// How long to wait for output if there is none, in milliseconds: at most 10,000.
    #[serde(default)]
    pub wait_ms: u32,
}

impl ConsoleRead {
    /// Checks the limits.
    ///
    /// # Errors
    /// If the wait is too long.
    pub fn check(&self) -> Result<(), Violations> {
        if self.wait_ms > CONSOLE_WAIT_MAX_MS {
            return Err(Violations::one("wait_ms", format!("must be at most {CONSOLE_WAIT_MAX_MS}")));
        }
        Ok(())
    }
}

/// What a VM has written to its console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleOutput {
    /// As the VM has written it, control characters included; at most 98,304 bytes.
    pub data: ConsoleBytes,
    /// Where the next request goes on.
    pub next: ConsoleCursor,
    /// Output between `after` and `data` is missing: it was not kept.
    #[serde(default)]
    pub is_gap: bool,
    /// There is more already.
    #[serde(default)]
    pub has_more: bool,
    /// What the VM does.
    pub phase: MachinePhase,
}

/// Asks for the input of a VM's console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsoleOpening {
    pub id: VmId,
    /// End the session of somebody else who has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub take_over: bool,
}

/// The input of a VM's console, until it is closed, or taken over, or its client makes no request for 15 s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleSession {
    pub session: Uuid,
    /// How long it lasts after the last request, in milliseconds.
    pub lasts_ms: u32,
}

/// Types at a VM's console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsoleInput {
    pub id: VmId,
    pub session: Uuid,
    /// How many bytes of the session precede `data`: what was typed already is not typed again.
    pub offset: u64,
    /// At most 4,096 bytes; none to keep the session.
    #[serde(default)]
    pub data: ConsoleBytes,
}

impl ConsoleInput {
    /// Checks the limits.
    ///
    /// # Errors
    /// If there is too much input.
    pub fn check(&self) -> Result<(), Violations> {
        if self.data.0.len() > CONSOLE_INPUT_MAX {
            return Err(Violations::one("data", format!("must be at most {CONSOLE_INPUT_MAX} bytes")));
        }
        Ok(())
    }
}

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleTyped {
    /// How many bytes of the session were typed. Fewer than were sent while the VM does not run, or takes no input.
    pub typed: u64,
    /// What the VM does.
    pub phase: MachinePhase,
}

/// Selects a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsoleClosing {
    pub id: VmId,
    pub session: Uuid,
}

/// A session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleClosed {}

/// `vm.read-console`
#[derive(Clone, Copy, Debug)]
pub struct ReadConsole;

impl RequestType for ReadConsole {
    const NAME: &'static str = "vm.read-console";
    const PERMISSION: Permission = Permission::VmConsole;
    const KIND: RequestKind = RequestKind::Relayed;
    const SUMMARY: &'static str = "Read what a VM has written to its console";
    const DESCRIPTION: &'static str = "The VM's node keeps the last 1 to 2 MiB. With `wait_ms`, the answer is sent as \
        soon as there is output: a client follows a console by asking again with `after`. `unavailable` if the node \
        does not answer; `conflict` if the VM has no machine, or the node's agent is too old.";
    type Body = ConsoleRead;
    type Answer = ConsoleOutput;
}

/// `vm.open-console`
#[derive(Clone, Copy, Debug)]
pub struct OpenConsole;

impl RequestType for OpenConsole {
    const NAME: &'static str = "vm.open-console";
    const PERMISSION: Permission = Permission::VmConsole;
    const KIND: RequestKind = RequestKind::Relayed;
    const SUMMARY: &'static str = "Begin to type at the console of a VM";
    const DESCRIPTION: &'static str = "Recorded as `vm.console-opened`. `conflict` with `details.holder` if somebody \
        else types there, unless `take_over` is set. Errors as of `vm.read-console`.";
    type Body = ConsoleOpening;
    type Answer = ConsoleSession;
}

/// `vm.write-console`
#[derive(Clone, Copy, Debug)]
pub struct WriteConsole;

impl RequestType for WriteConsole {
    const NAME: &'static str = "vm.write-console";
    const PERMISSION: Permission = Permission::VmConsole;
    const KIND: RequestKind = RequestKind::Relayed;
    const SUMMARY: &'static str = "Type at the console of a VM";
    const DESCRIPTION: &'static str = "Of a session of the caller; also keeps it. May be repeated: what was typed is \
        not typed again. `conflict` with `details.session` if the session has ended.";
    type Body = ConsoleInput;
    type Answer = ConsoleTyped;
}

/// `vm.close-console`
#[derive(Clone, Copy, Debug)]
pub struct CloseConsole;

impl RequestType for CloseConsole {
    const NAME: &'static str = "vm.close-console";
    const PERMISSION: Permission = Permission::VmConsole;
    const KIND: RequestKind = RequestKind::Relayed;
    const SUMMARY: &'static str = "End a session at the console of a VM";
    const DESCRIPTION: &'static str = "Succeeds also if it has ended.";
    type Body = ConsoleClosing;
    type Answer = ConsoleClosed;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_in_no_debug_text() {
        let bytes = ConsoleBytes(b"secret".to_vec());
        assert_eq!(format!("{bytes:?}"), "ConsoleBytes(6 bytes)");
        let text = serde_json::to_string(&bytes).unwrap();
        assert_eq!((text.as_str(), serde_json::from_str::<ConsoleBytes>(&text).unwrap()), ("\"c2VjcmV0\"", bytes));
        assert!(serde_json::from_str::<ConsoleBytes>("\"c2VjcmV0=\"").is_err());
    }

    #[test]
    fn cursors_have_bounds() {
        for bad in [String::new(), "x".repeat(97), "a/b".to_owned(), "A".to_owned()] {
            assert!(ConsoleCursor::try_from(bad.clone()).is_err(), "{bad}");
        }
        assert_eq!(ConsoleCursor::try_from("c1.2-3".to_owned()).unwrap().as_str(), "c1.2-3");
    }
}

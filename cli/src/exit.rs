//! Process exit codes: the only place that maps an error to its code.

use otherix_schemas::error::{ErrorCode, ErrorInfo};

/// The dependents that prevent a deletion: the key of their number in a conflict's details, and their name in the
/// singular.
const BLOCKERS: [(&str, &str); 2] = [("vm_nics", "VM NIC"), ("vms", "VM")];

/// The dependents that prevent a deletion, such as `2 VM NICs`, if the error reports any.
pub(crate) fn blockers(error: &ErrorInfo) -> Option<String> {
    if error.code != ErrorCode::Conflict {
        return None;
    }
    BLOCKERS.iter().find_map(|(key, noun)| {
        let count = error.details.get(*key)?.as_u64()?;
        Some(format!("{count} {noun}{}", if count == 1 { "" } else { "s" }))
    })
}

/// An exit code. The variants' meanings are listed for users in `otherix --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Success,
    /// An unexpected error: a bug, or an I/O error on this machine.
    Unexpected,
    /// `diff` has found a difference. Nothing is printed on stderr.
    Differs,
    /// An unexpected error of a command whose exit code 1 says something else.
    NotCompared,
    /// The command line or the request is invalid.
    Usage,
    NotFound,
    /// The request conflicts with the current state.
    Conflict,
    /// A deletion is prevented by dependent resources.
    Blocked,
    /// Not authenticated, or not permitted.
    Denied,
    /// NATS or the control plane is unreachable or temporarily unavailable.
    Unreachable,
    /// A node reported a failure (with `--wait`).
    NodeFailed,
    /// `--wait-timeout` expired.
    TimedOut,
}

impl Exit {
    /// The process exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Unexpected | Self::Differs => 1,
            Self::NotCompared => 9,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Blocked => 5,
            Self::Denied => 6,
            Self::Unreachable => 7,
            Self::NodeFailed => 8,
            Self::TimedOut => 124,
        }
    }

    /// The exit for an error returned by the control plane.
    pub(crate) fn of(error: &ErrorInfo) -> Self {
        match error.code {
            ErrorCode::ValidationFailed => Self::Usage,
            ErrorCode::Unauthenticated | ErrorCode::PermissionDenied => Self::Denied,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::Conflict if blockers(error).is_some() => Self::Blocked,
            ErrorCode::Conflict | ErrorCode::IdempotencyKeyMismatch => Self::Conflict,
            ErrorCode::Unavailable => Self::Unreachable,
            ErrorCode::Internal => Self::Unexpected,
        }
    }
}

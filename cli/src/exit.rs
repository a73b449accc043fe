//! What the process ends with. The one place that says which error has which exit code.

use otherix_schemas::error::{ErrorCode, ErrorInfo};

/// The keys under which a conflict's details count what keeps a thing from being deleted: a network's NICs, a node's VMs.
const BLOCKERS: [&str; 2] = ["vm_nics", "vms"];

/// What keeps a thing from being deleted, such as `2 vm_nics`, if something does.
pub(crate) fn blockers(error: &ErrorInfo) -> Option<String> {
    let blocker = |key: &&str| Some(format!("{} {key}", error.details.get(*key)?));
    BLOCKERS.iter().find_map(blocker).filter(|_| error.code == ErrorCode::Conflict)
}

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was done.
    Done,
    /// Something nobody thought of.
    Unexpected,
    /// The command line or the request breaks rules.
    Usage,
    /// There is no such thing.
    NotFound,
    /// It does not go with what exists.
    Conflict,
    /// Something depends on what was to go.
    Blocked,
    /// Not known, or not allowed.
    Denied,
    /// NATS or the control plane cannot be reached, or cannot work now.
    Unreachable,
    /// A node could not do its part (with `--wait`).
    NodeFailed,
    /// The nodes took longer than `--wait-timeout`.
    TimedOut,
}

impl Exit {
    /// The number for the shell.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unexpected => 1,
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

    /// What an error that the control plane answers with ends in.
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

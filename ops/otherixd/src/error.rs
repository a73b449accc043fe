//! The error type of the subcommands.

/// Any error of a subcommand; [`crate::hints::hint`] finds a hint for it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

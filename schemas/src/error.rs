//! The answer to a request that is rejected or fails.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::violations::{Violations, shortened};

/// The key of a conflict's details with the id of a removed node that tries to join again: the rejection is permanent.
pub const REMOVED_NODE: &str = "removed_node";

/// The key of the details of a `validation_failed` with the number of the last report of the node that was recorded, or
/// null: the report's own number is out of range.
pub const LAST_REPORT: &str = "last_report";

/// The body of an answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{}", .error.message)]
pub struct ErrorBody {
    pub error: ErrorInfo,
}

/// The code, message and details of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorInfo {
    pub code: ErrorCode,
    /// Human-readable; not stable.
    pub message: String,
    /// Machine-readable details, by code: `fields` (violated rules by field) of `validation_failed`; what blocks the
    /// command of a `conflict`.
    #[serde(default)]
    pub details: Map<String, Value>,
}

/// The code of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request violates rules: those in `details.fields`.
    ValidationFailed,
    /// The NATS server does not attest the user.
    Unauthenticated,
    /// The user lacks `details.permission`.
    PermissionDenied,
    /// The resource, or one that the request refers to, does not exist.
    NotFound,
    /// The current state does not permit it.
    Conflict,
    /// The idempotency key was used for a different request.
    IdempotencyKeyMismatch,
    /// Temporary: nothing was changed; retry.
    Unavailable,
    /// A fault of the control plane.
    Internal,
}

impl ErrorCode {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ValidationFailed => "validation_failed",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::IdempotencyKeyMismatch => "idempotency_key_mismatch",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The corresponding HTTP status, in the header `Nats-Service-Error-Code`.
    pub fn status(self) -> u16 {
        match self {
            Self::ValidationFailed => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::IdempotencyKeyMismatch => 409,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

/// Most characters of a message: more than the longest list of violations has.
const MESSAGE_MAX: usize = 40_000;

impl ErrorBody {
    /// An error without details. A long message, which may repeat what a request contains, is cut.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = shortened(message.into(), MESSAGE_MAX);
        Self { error: ErrorInfo { code, message, details: Map::new() } }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.error.details.insert(key.to_owned(), value.into());
        self
    }
}

impl From<Violations> for ErrorBody {
    fn from(violations: Violations) -> Self {
        Self::new(ErrorCode::ValidationFailed, format!("invalid request: {violations}"))
            .with_detail("fields", json!(violations))
    }
}

/// Displays an error and its causes on one line, for logs.
#[derive(Clone, Copy, Debug)]
pub struct Causes<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

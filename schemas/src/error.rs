//! What a refused or failed request is answered with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::violations::Violations;

/// The key under which a conflict's details name the node that asks and was removed: it is refused for good.
pub const REMOVED_NODE: &str = "removed_node";

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{}", .error.message)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorInfo,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorInfo {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// More for programs, by code: `fields` of `validation_failed`, the blockers of a `conflict`.
    #[serde(default)]
    pub details: Map<String, Value>,
}

/// The kinds of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request breaks rules; `details.fields` says which.
    ValidationFailed,
    /// It is not known who asks.
    Unauthenticated,
    /// Who asks may not.
    PermissionDenied,
    /// There is no such thing.
    NotFound,
    /// The request does not go with what exists.
    Conflict,
    /// The idempotency key was used for another request.
    IdempotencyKeyMismatch,
    /// Nothing happened; try again.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl ErrorCode {
    /// As it is written.
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

    /// The number in the NATS service's error header, an HTTP status.
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

impl ErrorBody {
    /// An error without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { error: ErrorInfo { code, message: message.into(), details: Map::new() } }
    }

    /// The same error with one more detail.
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

/// An error with all its causes on one line, for logs.
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

//! Parses a request's body.

use serde::de::DeserializeOwned;

use crate::error::{ErrorBody, ErrorCode};

/// Parses a body that must be this JSON.
///
/// # Errors
/// `validation_failed` if it is not.
pub fn parse_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorBody> {
    serde_json::from_slice(body).map_err(|error| {
        ErrorBody::new(ErrorCode::ValidationFailed, format!("the request's body is malformed: {error}"))
    })
}

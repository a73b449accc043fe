//! Hints: what an operator can do about a failure, where the message does not say so.

use std::error::Error;

use otherix_commands::recovery::adopt::AdoptError;
use otherix_commands::recovery::restore::RestoreError;
use otherix_commands::relay::RelayError;
use otherix_commands::store::{LoadError, OpenError, StoreError};
use otherix_runtime::ClockError;

use crate::backup::BackupError;
use crate::given_up::GivenUpError;
use crate::nats::{MirrorError, NatsError};

/// Returns the hint of the outermost error in the chain of causes that has one.
pub(crate) fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(hint) = own_hint(error) {
            return Some(hint);
        }
        cause = error.source();
    }
    None
}

fn own_hint(error: &(dyn Error + 'static)) -> Option<String> {
    let owned = |hint: Option<&'static str>| hint.map(str::to_owned);
    if let Some(error) = error.downcast_ref::<NatsError>() {
        error.hint()
    } else if error.is::<ClockError>() {
        Some(ClockError::HINT.to_owned())
    } else if let Some(error) = error.downcast_ref::<OpenError>() {
        Some(error.hint().to_owned())
    } else if let Some(error) = error.downcast_ref::<LoadError>() {
        owned(error.hint())
    } else if let Some(error) = error.downcast_ref::<StoreError>() {
        owned(error.hint())
    } else if let Some(error) = error.downcast_ref::<RelayError>() {
        owned(error.hint())
    } else if let Some(error) = error.downcast_ref::<AdoptError>() {
        owned(error.hint())
    } else if let Some(MirrorError::Lost(error)) = error.downcast_ref() {
        owned(error.hint())
    } else if let Some(error) = error.downcast_ref::<BackupError>() {
        owned(error.hint())
    } else if let Some(GivenUpError::Contradicted { .. }) = error.downcast_ref() {
        owned(Some(GivenUpError::CONTRADICTED_HINT))
    } else {
        owned(error.downcast_ref::<RestoreError>().and_then(RestoreError::hint))
    }
}

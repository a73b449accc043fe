//! Writes the guest filter.

use otherix_schemas::id::ClusterId;

use super::action::{ChangeLocks, GUEST_FILTER, WriteGuestFilter};
use crate::engine::{StepAction, Subject};
use crate::kernel::{Kernel, KernelError};
use crate::model::observed::Parts;

impl StepAction for WriteGuestFilter {
    fn kind(&self) -> &'static str {
        "guests"
    }

    fn name(&self) -> &'static str {
        "write"
    }

    fn subject(&self) -> Subject {
        Subject::Node(GUEST_FILTER)
    }

    fn invalidates(&self) -> Parts {
        Parts::FIREWALL
    }

    /// Programs that load a ruleset of their own flush all tables.
    fn is_limited(&self) -> bool {
        false
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, _: ClusterId) -> Vec<Result<(), KernelError>> {
        let locks = |action: &Self| action.is_wanted.then(|| action.locks.clone());
        actions.iter().map(|action| kernel.write_guest_filter(locks(action).as_ref())).collect()
    }
}

impl StepAction for ChangeLocks {
    fn kind(&self) -> &'static str {
        "guests"
    }

    fn name(&self) -> &'static str {
        "change_locks"
    }

    fn subject(&self) -> Subject {
        Subject::Node(GUEST_FILTER)
    }

    /// It is repeated when NICs are attached and detached.
    fn is_limited(&self) -> bool {
        false
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, _: ClusterId) -> Vec<Result<(), KernelError>> {
        actions.iter().map(|Self { remove, add }| kernel.change_locks(remove, add)).collect()
    }
}

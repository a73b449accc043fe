//! Creates and repairs taps.
//!
//! A tap is created down, with a temporary name. It gets name, alias and bridge in one request, is then locked and made
//! a member of its VLAN, and set up last, so that no frame passes before.

use otherix_schemas::error::Causes;
use otherix_schemas::id::{ClusterId, NicId};
use otherix_tun::TapDevice;

use super::action::{CreateTap, RepairTap};
use crate::device::port::apply::change_port;
use crate::engine::{StepAction, Subject};
use crate::kernel::{Kernel, KernelError};
use crate::model::observed::Parts;
use crate::model::owner::{Owner, temporary_name};

impl StepAction for CreateTap {
    fn kind(&self) -> &'static str {
        "tap"
    }

    fn name(&self) -> &'static str {
        "create"
    }

    fn subject(&self) -> Subject {
        Subject::Nic(self.nic)
    }

    fn invalidates(&self) -> Parts {
        Parts::PORTS
    }

    fn creates(&self) -> Option<&str> {
        Some(&self.tap.name)
    }

    /// First creates all of them, then configures each.
    fn execute(actions: &[&Self], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let created: Vec<_> = actions.iter().map(|action| create(kernel, action.nic)).collect();
        let names: Vec<_> = actions.iter().map(|action| temporary_name(action.nic.uuid())).collect();
        let found = kernel.find_links(&names);
        let mut results = Vec::with_capacity(actions.len());
        for ((action, created), found) in actions.iter().zip(created).zip(found) {
            let index = created.and_then(|()| found.map_err(|error| error.to_string()));
            let result = index.and_then(|index| {
                let owner = Owner::of_nic(cluster, action.nic);
                let failure = change_port(kernel, index, &action.changes, owner).err();
                kernel.complete(index, failure.map(|error| error.to_string()))
            });
            results.push(result.map_err(|reason| KernelError::Create { name: action.tap.name.clone(), reason }));
        }
        results
    }
}

impl StepAction for RepairTap {
    fn kind(&self) -> &'static str {
        "tap"
    }

    fn name(&self) -> &'static str {
        "repair"
    }

    fn subject(&self) -> Subject {
        Subject::Nic(self.nic)
    }

    fn invalidates(&self) -> Parts {
        Parts::PORTS
    }

    fn changes(&self) -> Option<u32> {
        Some(self.index)
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let repaired = actions.iter().map(|action| {
            let owner = Owner::of_nic(cluster, action.nic);
            let repaired = change_port(kernel, action.index, &action.changes, owner);
            repaired.map_err(|error| KernelError::Repair { what: "tap", reason: error.to_string() })
        });
        repaired.collect()
    }
}

/// Creates a persistent tap, which stays when no process is attached to it.
fn create(kernel: &mut Kernel, nic: NicId) -> Result<(), String> {
    let name = temporary_name(nic.uuid());
    let created = TapDevice::create(&name).and_then(|tap| tap.set_persistent(true));
    created.map_err(|error| Causes(&error).to_string())?;
    kernel.disable_ipv6(&name);
    Ok(())
}

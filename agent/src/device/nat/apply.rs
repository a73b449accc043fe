//! Writes our table of the packet filter, and configures gateways and uplinks.

use otherix_schemas::id::ClusterId;

use super::action::{ConfigureGateway, ForwardUplink, PACKET_FILTER, WriteTable};
use crate::engine::{StepAction, Subject};
use crate::kernel::message::ip;
use crate::kernel::{Kernel, KernelError, RequestError, first_error};
use crate::model::observed::Parts;

/// `EEXIST`: the route exists.
const EEXIST: i32 = 17;

/// `EADDRNOTAVAIL`: the link has no such address.
const EADDRNOTAVAIL: i32 = 99;

impl StepAction for WriteTable {
    fn kind(&self) -> &'static str {
        "nat"
    }

    fn name(&self) -> &'static str {
        "write_table"
    }

    fn subject(&self) -> Subject {
        Subject::Node(PACKET_FILTER)
    }

    fn invalidates(&self) -> Parts {
        Parts::FIREWALL
    }

    fn is_quick(&self) -> bool {
        false
    }

    /// It is repeated when networks are created and deleted.
    fn is_limited(&self) -> bool {
        false
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, _: ClusterId) -> Vec<Result<(), KernelError>> {
        let written =
            actions.iter().map(|Self { ruleset, forget_connections }| kernel.write_table(ruleset, forget_connections));
        written.collect()
    }
}

impl StepAction for ForwardUplink {
    fn kind(&self) -> &'static str {
        "nat"
    }

    fn name(&self) -> &'static str {
        "forward_uplink"
    }

    fn subject(&self) -> Subject {
        Subject::Device(self.index)
    }

    /// The record is read with the links.
    fn invalidates(&self) -> Parts {
        Parts { links: true, ..Parts::NONE }
    }

    /// The record is synced to disk.
    fn is_quick(&self) -> bool {
        false
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, _: ClusterId) -> Vec<Result<(), KernelError>> {
        let forwarding = actions.iter().map(|Self { index, name, on }| {
            let result = kernel.forward_uplink(*index, name, *on);
            result.map_err(|source| KernelError::Forwarding { name: name.clone(), source })
        });
        forwarding.collect()
    }
}

impl StepAction for ConfigureGateway {
    fn kind(&self) -> &'static str {
        "nat"
    }

    fn name(&self) -> &'static str {
        "configure_gateway"
    }

    fn subject(&self) -> Subject {
        Subject::Network(self.network)
    }

    fn changes(&self) -> Option<u32> {
        Some(self.index)
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, _: ClusterId) -> Vec<Result<(), KernelError>> {
        let configured = actions
            .iter()
            .map(|action| action.configure(kernel).map_err(|reason| KernelError::Repair { what: "bridge", reason }));
        configured.collect()
    }
}

/// Whether the address that was to be removed did not exist.
fn is_absent(error: &RequestError) -> bool {
    error.errno() == Some(EADDRNOTAVAIL)
}

impl ConfigureGateway {
    fn configure(&self, kernel: &mut Kernel) -> Result<(), String> {
        // First: a new address in the subnet of a former one would be removed with it, as a secondary one.
        if let Some(address) = self.remove {
            let removed = kernel.request(ip::delete_address(self.index, address));
            removed.map(drop).or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error.to_string()) })?;
        }
        if let Some(address) = self.address {
            kernel.request(ip::add_address(self.index, address)).map_err(|error| error.to_string())?;
        }
        if let Some(address) = self.routes {
            let added = kernel.exchange(ip::add_connected_routes(self.index, address).into());
            let failed =
                added.into_iter().filter(|result| !matches!(result, Err(error) if error.errno() == Some(EEXIST)));
            first_error(failed).map_err(|error| error.to_string())?;
        }
        if let Some(on) = self.forwarding {
            let name = kernel.name_of(self.index)?;
            kernel.set_forwarding(&name, on).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

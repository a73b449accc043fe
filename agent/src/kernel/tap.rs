//! Making and repairing taps.
//!
//! A tap is made down under a temporary name; then it gets its own and its alias at once, becomes a port, is locked and put into
//! its VLAN, and only then is it up: no frame passes before it may.

use otherix_netlink::Message;
use otherix_schemas::id::{ClusterId, NicId};
use otherix_tun::Tap;

use super::bridging;
use super::message;
use super::requests::RequestError;
use super::steps::{Kernel, KernelError, index, refusal};
use crate::model::desired::DesiredTap;
use crate::model::owner::{Owner, temporary_name};
use crate::model::plan::{PortChanges, Step};

/// `ENETDOWN`: what needs a carrier has none.
const ENETDOWN: i32 = 100;

impl Kernel {
    /// Makes taps: first all of them, then each gets all that it must have.
    pub(super) fn create_taps(&mut self, steps: &[Step], cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let wanted: Vec<_> = steps.iter().filter_map(creation).collect();
        let made: Vec<_> = wanted.iter().map(|(nic, ..)| self.make(*nic)).collect();
        let found = wanted.iter().map(|(nic, ..)| message::find(&temporary_name(nic.uuid()))).collect();
        let found = self.exchange(found);
        let mut results = Vec::with_capacity(steps.len());
        for (((nic, tap, changes), made), found) in wanted.into_iter().zip(made).zip(found) {
            let result = made.and_then(|()| index(found).map_err(|error| error.to_string())).and_then(|index| {
                let failure = self.change_port(index, changes, Owner::of_nic(cluster, nic)).err();
                self.completed(index, failure)
            });
            results.push(result.map_err(|reason| KernelError::Create { name: tap.name.clone(), reason }));
        }
        results
    }

    /// Makes a tap that stays when nobody is attached, and attaches nobody.
    fn make(&mut self, nic: NicId) -> Result<(), String> {
        let name = temporary_name(nic.uuid());
        let made = Tap::create(&name).and_then(|tap| tap.set_persistent(true));
        made.map_err(|error| otherix_schemas::error::Causes(&error).to_string())?;
        self.turn_off_ipv6(&name);
        Ok(())
    }

    pub(super) fn change_port(&mut self, index: u32, changes: &PortChanges, owner: Owner) -> Result<(), String> {
        let PortChanges { name, mtu, up, alias, bridge, lock, unblock, vlan, station, forget } = changes;
        let mut messages: Vec<Message> = Vec::new();
        // Before Linux 6.2 a link must be down to be renamed; and what is moved must not forward before it is locked.
        let must_be_down = name.is_some() || bridge.is_some();
        messages.extend(must_be_down.then(|| message::take_down(index)));
        if name.is_some() || mtu.is_some() || *alias || bridge.is_some() {
            messages.push(message::change_port(index, changes, owner));
        }
        messages.extend(lock.then(|| bridging::lock(index)));
        messages.extend(vlan.iter().flat_map(|vlan| bridging::only_vlan(index, *vlan, false)));
        messages.extend(station.map(|station| bridging::know(index, station)));
        messages.extend(forget.iter().map(|station| bridging::forget(index, *station)));
        refusal(self.exchange(messages)).map_or(Ok(()), Err)?;
        if *unblock {
            match self.requests.request(bridging::unblock(index)) {
                // It has lost its carrier meanwhile, and forwards when it has one again.
                Err(RequestError::Refused(refusal)) if refusal.errno() == ENETDOWN => {}
                answer => drop(answer.map_err(|error| error.to_string())?),
            }
        }
        if *up || must_be_down {
            // Only once nothing was refused: a port that is not locked must not be heard.
            self.requests.request(message::take_up(index)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn creation(step: &Step) -> Option<(NicId, &DesiredTap, &PortChanges)> {
    match step {
        Step::CreateTap { nic, tap, changes } => Some((*nic, tap, changes)),
        Step::Rules(_)
        | Step::Uplink { .. }
        | Step::Create { .. }
        | Step::Repair { .. }
        | Step::RepairTap { .. }
        | Step::CreateVtep { .. }
        | Step::RepairVtep { .. }
        | Step::Forward { .. }
        | Step::Remove { .. } => None,
    }
}

//! Looks up the routes of the node's own packets that plans depend on.
//!
//! The kernel does not notify of look-ups that have another result, but of what they follow from: routes, rules,
//! addresses and links. Results are used again until such a notification arrives, and for a second at most: not every
//! cause is notified of, and some are before they take effect.
//!
//! Cancel-safety: that of a pass.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::reconciler::Reconciler;
use crate::kernel::KernelError;
use crate::model::desired::Desired;
use crate::model::link::LinkChange;

/// How long results are used again.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Most addresses that are looked up on the agent's main thread, at some 10 µs each.
const QUICK: usize = 16;

impl Reconciler {
    /// Makes the next pass look up all routes.
    pub fn expire_look_ups(&mut self) {
        self.look_up_at = Instant::now();
    }

    /// Looks up the routes that plans depend on.
    pub(super) async fn look_up(&mut self, desired: &Desired) -> Result<(), KernelError> {
        let mut addresses = BTreeSet::new();
        self.kinds.iter().for_each(|kind| kind.look_ups(desired, &self.observed, &mut addresses));
        let now = Instant::now();
        let is_expired = now >= self.look_up_at;
        let known = &mut self.observed.route_lookups;
        known.retain(|address, _| addresses.contains(address));
        if !is_expired {
            addresses.retain(|address| !known.contains_key(address));
        }
        if addresses.is_empty() {
            return Ok(());
        }
        // What cannot be looked up for now is as it was, and is looked up again by the next pass.
        let count = addresses.len();
        let found = if count <= QUICK {
            self.kernel.lock().unwrap_or_else(PoisonError::into_inner).look_up(&addresses)
        } else {
            self.run_blocking(move |kernel| Ok(kernel.look_up(&addresses))).await?
        };
        if is_expired && found.len() == count {
            self.look_up_at = now + MAX_AGE;
        }
        let known = &mut self.observed.route_lookups;
        for (address, lookup) in found {
            if known.insert(address, lookup) != Some(lookup) {
                self.dirty.lookups.insert(address);
            }
        }
        Ok(())
    }

    /// Whether look-ups may have other results after this change of a link, which has not been applied. Routes through
    /// a new link are notified of, and none lead through a device of ours without an address.
    pub(super) fn may_redirect(&self, change: &LinkChange) -> bool {
        let Some(before) = self.observed.link(change.index()) else { return false };
        let is_same = matches!(change, LinkChange::Seen(link) if link == before);
        let is_ours = self.observed.owner(before).is_some();
        !is_same && (!is_ours || self.observed.ip.addresses.contains_key(&before.index))
    }
}

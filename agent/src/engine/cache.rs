//! What the last plan was made from, so that only networks whose plan may differ are planned again. In doubt, all of
//! them are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::{ClusterId, NetworkId, NicId};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;

use super::kind::{Kinds, network_names};
use super::plan::Plan;
use super::step::Step;
use crate::model::desired::{Desired, DesiredNetwork};
use crate::model::observed::Observed;

/// The changes of the observed state since the last plan, as far as plans depend on them.
#[derive(Debug, Default)]
pub(super) struct DirtySet {
    pub(super) links: BTreeSet<u32>,
    /// The addresses whose route lookup has another result.
    pub(super) lookups: BTreeSet<Ipv4Addr>,
    /// Something else changed.
    pub(super) others: bool,
}

/// A plan with another key is not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheKey {
    pub(super) cluster: ClusterId,
    pub(super) has_left: bool,
    pub(super) is_current: bool,
}

pub(super) struct PlanCache {
    kinds: Kinds,
    key: Option<CacheKey>,
    /// Everything was planned once, and every change since; nothing is to be removed, and nothing has failed.
    pub(super) is_complete: bool,
    /// The networks of the last plan.
    pub(super) networks: BTreeSet<NetworkId>,
    /// The names of devices that the desired state requires or depends on, or did since everything was last planned.
    pub(super) names: BTreeSet<String>,
    /// The desired state of each network when it was last planned.
    desired: BTreeMap<NetworkId, DesiredNetwork>,
    /// The networks that were not ready in the last plan.
    unready: BTreeSet<NetworkId>,
    /// The notices of the last plan for everything.
    notices: Vec<String>,
}

impl PlanCache {
    pub(super) fn new(kinds: Kinds) -> Self {
        Self {
            kinds,
            key: None,
            is_complete: false,
            networks: BTreeSet::new(),
            names: BTreeSet::new(),
            desired: BTreeMap::new(),
            unready: BTreeSet::new(),
            notices: Vec::new(),
        }
    }

    /// Makes the next plan one for everything.
    pub(super) fn invalidate(&mut self) {
        self.is_complete = false;
    }

    /// Returns the networks whose plan may differ from the last one, or `None` if everything must be planned.
    pub(super) fn may_differ(
        &self,
        desired: &Desired,
        key: CacheKey,
        dirty: &DirtySet,
        observed: &Observed,
    ) -> Option<BTreeSet<NetworkId>> {
        if !self.is_complete || self.key != Some(key) || dirty.others {
            return None;
        }
        let mut networks = self.unready.clone();
        for index in &dirty.links {
            let owner = observed.owner(observed.link(*index)?)?;
            let network = NetworkId::new(owner.id);
            if desired.networks.contains_key(&network) {
                networks.insert(network);
            } else {
                // What packet filters do with packets of its network depends on the bridge's ports.
                let nic = desired.nics.get(&NicId::new(owner.id))?;
                let network = nic.tap.as_ref().map(|tap| tap.network);
                networks.extend(network.filter(|network| desired.networks.contains_key(network)));
            }
        }
        if !dirty.lookups.is_empty() {
            let kinds = self.kinds.iter();
            kinds.for_each(|kind| kind.depend_on_lookups(desired, observed, &dirty.lookups, &mut networks));
        }
        let known = desired.networks.iter().filter(|(id, network)| {
            let before = self.desired.get(id);
            if before != Some(network) {
                networks.insert(**id);
            }
            before.is_some()
        });
        // Otherwise a network that was planned is missing from the desired state.
        (known.count() == self.desired.len()).then_some(networks)
    }

    /// Returns the networks about which something else was decided since they were last planned.
    pub(super) fn decided(&self, desired: &Desired) -> BTreeSet<NetworkId> {
        let is_other = |id: &NetworkId, generation: Position| {
            self.desired.get(id).is_some_and(|before| before.generation != generation)
        };
        let networks = desired.networks.iter().filter(|(id, network)| is_other(id, network.generation));
        networks.map(|(id, _)| *id).collect()
    }

    /// Records a plan for these networks, or for everything. The caller clears [`PlanCache::is_complete`] if a subject
    /// was not to be tried. Adds the notices of the last plan for everything to the plan.
    pub(super) fn update(
        &mut self,
        desired: &Desired,
        key: CacheKey,
        only: Option<BTreeSet<NetworkId>>,
        plan: &mut Plan,
    ) {
        let is_everything = only.is_none();
        let networks = only.unwrap_or_else(|| desired.networks.keys().copied().collect());
        if is_everything {
            self.names.clear();
            self.notices = plan.notices.clone();
            self.desired = desired.networks.clone();
            self.unready.clear();
        } else {
            plan.notices.extend(self.notices.iter().cloned());
        }
        for id in &networks {
            if let Some(network) = desired.networks.get(id) {
                network_names(self.kinds, network, &mut self.names);
                if !is_everything {
                    self.desired.insert(*id, network.clone());
                }
            }
            let is_ready = plan.outcomes.get(id) == Some(&Outcome::Ready);
            let _changed = if is_ready { self.unready.remove(id) } else { self.unready.insert(*id) };
        }
        for tap in desired.nics.values().filter_map(|nic| nic.tap.as_ref()) {
            self.kinds.iter().for_each(|kind| kind.nic_names(tap, &mut self.names));
        }
        // Networks with steps are not ready, and are planned again. A removal may concern an orphan.
        self.is_complete = !plan.steps.iter().any(Step::is_removal);
        (self.key, self.networks) = (Some(key), networks);
    }
}

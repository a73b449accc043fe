//! What was planned last, so that the next plan is made only for what may differ: with a thousand networks, most do
//! not. In doubt everything is planned.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::id::{ClusterId, NetworkId, NicId};
use otherix_schemas::outcome::Outcome;

use super::kind::{Kinds, network_names};
use super::plan::Plan;
use super::step::Step;
use crate::model::desired::{Desired, DesiredNetwork};
use crate::model::observed::Observed;

/// What changed in the observed state since the last plan, as far as a plan depends on it.
#[derive(Debug, Default)]
pub(super) struct DirtySet {
    pub(super) links: BTreeSet<u32>,
    /// Anything else.
    pub(super) others: bool,
}

/// Whose plan it is: a plan for other circumstances says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Circumstances {
    pub(super) cluster: ClusterId,
    pub(super) has_left: bool,
    pub(super) is_current: bool,
}

pub(super) struct PlanCache {
    kinds: Kinds,
    circumstances: Option<Circumstances>,
    /// Everything was planned once, and since then all that changed; nothing is to be removed, and nothing has failed.
    pub(super) is_complete: bool,
    /// The networks of the last plan.
    pub(super) networks: BTreeSet<NetworkId>,
    /// The names of devices that the desired state requires, or has required since everything was planned.
    pub(super) names: BTreeSet<String>,
    /// The desired state of the networks that were planned.
    desired: BTreeMap<NetworkId, DesiredNetwork>,
    /// The networks that were not ready.
    unready: BTreeSet<NetworkId>,
    /// The notices of the last plan of everything.
    notices: Vec<String>,
}

impl PlanCache {
    pub(super) fn new(kinds: Kinds) -> Self {
        Self {
            kinds,
            circumstances: None,
            is_complete: false,
            networks: BTreeSet::new(),
            names: BTreeSet::new(),
            desired: BTreeMap::new(),
            unready: BTreeSet::new(),
            notices: Vec::new(),
        }
    }

    /// Has everything planned next.
    pub(super) fn invalidate(&mut self) {
        self.is_complete = false;
    }

    /// Returns the networks whose plan may differ from the last one; `None` stands for everything.
    pub(super) fn may_differ(
        &self,
        desired: &Desired,
        circumstances: Circumstances,
        dirty: &DirtySet,
        observed: &Observed,
    ) -> Option<BTreeSet<NetworkId>> {
        if !self.is_complete || self.circumstances != Some(circumstances) || dirty.others {
            return None;
        }
        let mut networks = self.unready.clone();
        for index in &dirty.links {
            let owner = observed.owner(observed.link(*index)?)?;
            let network = NetworkId::new(owner.id);
            if desired.networks.contains_key(&network) {
                networks.insert(network);
            } else if !desired.nics.contains_key(&NicId::new(owner.id)) {
                return None;
            }
        }
        let known = desired.networks.iter().filter(|(id, network)| {
            let before = self.desired.get(id);
            if before != Some(network) {
                networks.insert(**id);
            }
            before.is_some()
        });
        // No network that was planned is missing from the desired state.
        (known.count() == self.desired.len()).then_some(networks)
    }

    /// Stores a plan of these networks, or of everything. It is incomplete if a subject was not to be tried: see
    /// [`PlanCache::is_complete`].
    pub(super) fn update(
        &mut self,
        desired: &Desired,
        circumstances: Circumstances,
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
        // Networks with steps are not ready, and are planned again. A removal may be of an orphan.
        self.is_complete = !plan.steps.iter().any(Step::is_removal);
        (self.circumstances, self.networks) = (Some(circumstances), networks);
    }
}

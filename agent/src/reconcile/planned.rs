//! What was planned last, so that the next plan need only be made for what may differ from it: with a thousand networks, most are
//! as they were. Owns the comparison, which errs on the side of planning everything.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::id::{ClusterId, NetworkId, NicId};
use otherix_schemas::outcome::Outcome;

use crate::model::desired::{Desired, DesiredNetwork};
use crate::model::observed::Observed;
use crate::model::plan::{Plan, Step};

/// What the kernel has told since the last plan, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Of these links.
    pub(super) links: BTreeSet<u32>,
    /// Of anything else.
    pub(super) others: bool,
}

/// For which cluster, whether the node is no longer part of it, and whether the view was current.
type ForWhom = (ClusterId, bool, bool);

/// What was planned last.
#[derive(Debug, Default)]
pub(super) struct Planned {
    for_whom: Option<ForWhom>,
    /// Everything was planned at some time, and since then all that changed; nothing is to be removed, and nothing was refused.
    pub(super) is_whole: bool,
    /// The networks of the last plan.
    pub(super) networks: BTreeSet<NetworkId>,
    /// The names of the devices that are wanted, or have been since everything was planned.
    pub(super) names: BTreeSet<String>,
    /// What was planned for.
    desired: BTreeMap<NetworkId, DesiredNetwork>,
    /// Those that were not ready.
    unready: BTreeSet<NetworkId>,
    /// What was said when everything was planned.
    notices: Vec<String>,
}

impl Planned {
    /// The networks that may have to be planned otherwise than last time; none if those are perhaps all.
    pub(super) fn may_differ(
        &self,
        desired: &Desired,
        for_whom: ForWhom,
        news: &News,
        observed: &Observed,
    ) -> Option<BTreeSet<NetworkId>> {
        if !self.is_whole || self.for_whom != Some(for_whom) || news.others {
            return None;
        }
        let mut networks = self.unready.clone();
        for index in &news.links {
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
        // None that was planned for has gone from what is desired.
        (known.count() == self.desired.len()).then_some(networks)
    }

    /// Remembers what was planned: for these networks or for all, and whether nothing is refused at present.
    pub(super) fn take_in(
        &mut self,
        desired: &Desired,
        for_whom: ForWhom,
        (only, is_calm): (Option<BTreeSet<NetworkId>>, bool),
        plan: &mut Plan,
    ) {
        let is_everything = only.is_none();
        let networks = only.unwrap_or_else(|| desired.networks.keys().copied().collect());
        if is_everything {
            self.names = desired.names();
            self.notices = plan.notices.clone();
            self.desired = desired.networks.clone();
            self.unready.clear();
        } else {
            plan.notices.extend(self.notices.iter().cloned());
        }
        for id in &networks {
            if let Some(network) = desired.networks.get(id) {
                self.names.extend(network.want.names());
                if !is_everything {
                    self.desired.insert(*id, network.clone());
                }
            }
            let is_ready = plan.outcomes.get(id) == Some(&Outcome::Ready);
            let _changed = if is_ready { self.unready.remove(id) } else { self.unready.insert(*id) };
        }
        self.names.extend(desired.nics.values().filter_map(|nic| nic.tap.as_ref()).map(|tap| tap.name.clone()));
        // Networks that have steps are not ready, and are planned again. A removal may be of what no network has.
        self.is_whole = is_calm && !plan.steps.iter().any(Step::is_removal);
        (self.for_whom, self.networks) = (Some(for_whom), networks);
    }
}

//! Our table of the packet filter; and the way out of networks with NAT egress: the gateway's address, and forwarding on the bridge
//! and the uplinks.
//!
//! No bridge gets its address or begins to forward before the table guards it, and the table guards it until it is gone.

use otherix_schemas::outcome::Outcome;

use super::overlay::vteps;
use super::step::{Changes, Failures, Step};
use super::survey::{Holder, Survey};
use super::text;
use crate::model::desired::{Desired, DesiredBridge, Gateway, Want};
use crate::model::firewall::{Rules, Ruleset};
use crate::model::ip::Reach;
use crate::model::observed::{Link, Observed};

pub(super) struct Nat {
    /// What our table must say; nothing if it is not this plan's to say.
    rules: Option<Ruleset>,
    /// It says something else.
    differs: bool,
    /// It says more than it must.
    shrinks: bool,
    /// What it says cannot be told for now.
    unread: bool,
    /// It cannot be written for now.
    failure: Option<String>,
    /// There is a network that needs a way out.
    is_used: bool,
    /// Which addresses are reached by which links.
    reach: Reach,
    /// Uplinks that do not forward yet: their index and name, or why they cannot.
    uplinks: Vec<(u32, String, Option<String>)>,
}

impl Nat {
    pub(super) fn new(desired: &Desired, survey: &Survey<'_>, failures: &Failures) -> Self {
        let observed = survey.observed();
        let rules = (!desired.has_left).then(|| ruleset(desired, survey));
        let differs = rules.as_ref().is_some_and(|rules| !observed.firewall.rules.are(rules));
        let shrinks = match (&rules, observed.firewall.rules.known()) {
            (Some(wanted), Some(is)) => {
                is.ways_out.keys().any(|name| !wanted.ways_out.contains_key(name))
                    || (is.vteps.is_some() && wanted.vteps.is_none())
            }
            (Some(_), None) => observed.firewall.rules == Rules::Unread,
            (None, _) => false,
        };
        let unread = observed.firewall.rules == Rules::Unread;
        let is_used = rules.as_ref().is_some_and(|rules| !rules.ways_out.is_empty());
        let idle = |link: &&Link| is_used && !observed.ip.forwarding.contains(&link.index);
        let uplinks = uplinks(observed).filter(idle);
        let uplinks =
            uplinks.map(|link| (link.index, link.name.clone(), failures.devices.get(&link.index).cloned())).collect();
        Self {
            rules,
            differs,
            shrinks,
            unread,
            failure: failures.rules.clone(),
            is_used,
            reach: observed.ip.reach(),
            uplinks,
        }
    }

    /// What concerns all networks.
    pub(super) fn steps(&self) -> Vec<Step> {
        let write = self.differs && !self.unread && self.failure.is_none();
        let rules = self.rules.iter().filter(|_| write).cloned().map(Step::Rules);
        let guarded = !self.differs;
        let uplinks = self.uplinks.iter().filter(|(_, _, failure)| guarded && failure.is_none());
        rules.chain(uplinks.map(|(index, name, _)| Step::Uplink { index: *index, name: name.clone() })).collect()
    }

    /// Whether the table still has what goes.
    pub(super) fn shrinks(&self) -> bool {
        self.shrinks && self.failure.is_none()
    }

    /// The table is not what it must be.
    pub(super) fn unguarded(&self) -> Option<Outcome> {
        let error = self.failure.as_ref().map(|error| Outcome::Failed(error.clone()));
        let waiting = if self.unread { text::UNREAD } else { text::UNGUARDED };
        self.differs.then(|| error.unwrap_or_else(|| Outcome::Pending(waiting.to_owned())))
    }

    /// Adds what a bridge of ours needs to be a network's way out, or to be none. Says what is in the way, or waited for.
    pub(super) fn way_out(
        &self,
        observed: &Observed,
        bridge: &DesiredBridge,
        index: u32,
        changes: &mut Changes,
    ) -> Option<Outcome> {
        let forwards = observed.ip.forwarding.contains(&index);
        let Some(gateway) = bridge.nat else {
            let is_uplink = self.is_used && observed.ip.uplinks.contains(&index);
            changes.forwarding = (forwards && !is_uplink).then_some(false);
            return None;
        };
        if let Some(outcome) = self.in_the_way(observed, bridge, Some(index)) {
            return Some(outcome);
        }
        if let Some(outcome) = self.unguarded() {
            return Some(outcome);
        }
        changes.address = Some(gateway.on_bridge()).filter(|address| !observed.ip.has(index, *address));
        changes.forwarding = (!forwards).then_some(true);
        if uplinks(observed).next().is_none() {
            return Some(Outcome::Pending(text::NO_UPLINK.to_owned()));
        }
        self.uplinks.first().map(|(_, name, failure)| match failure {
            Some(error) => Outcome::Failed(error.clone()),
            None => Outcome::Pending(format!("waiting for `{name}` to forward IPv4")),
        })
    }

    /// Something else on the node that reaches addresses of the network.
    pub(super) fn in_the_way(&self, observed: &Observed, bridge: &DesiredBridge, own: Option<u32>) -> Option<Outcome> {
        let gateway = bridge.nat?;
        let (index, address) = self.reach.overlaps(gateway.subnet).find(|(index, _)| Some(*index) != own)?;
        let link = observed.link(index)?;
        let text = text::overlap(gateway.subnet, link, address);
        // One of ours goes, or has an address that is not its own.
        Some(if observed.owner(link).is_some() { Outcome::Pending(text) } else { Outcome::Failed(text) })
    }

    /// What others do that works against a network.
    pub(super) fn warnings(&self, observed: &Observed, bridge: &DesiredBridge) -> Option<Vec<String>> {
        let firewall = &observed.firewall;
        let concerned = bridge.nat.is_some() || firewall.bridged;
        let drops = firewall.drops.iter().filter(|_| concerned).map(|chain| text::drops(chain));
        let bridged = firewall.bridged.then(|| text::BRIDGED.to_owned());
        let warnings: Vec<_> = drops.chain(bridged).collect();
        (!warnings.is_empty()).then_some(warnings)
    }
}

/// The links by which default routes lead. A link that is down has none, though the kernel may not have been asked since.
fn uplinks(observed: &Observed) -> impl Iterator<Item = &Link> {
    observed.ip.uplinks.iter().filter_map(|index| observed.link(*index)).filter(|link| link.up)
}

/// All networks that need a way out; none whose bridge's name is somebody else's, for it is the name that the rules go by, but for
/// the name that its bridge has meanwhile. And those that nobody wants, or whose removal is held back, as long as their bridges are
/// there: they are known to be guarded, or have an address and forward.
fn ruleset(desired: &Desired, survey: &Survey<'_>) -> Ruleset {
    let wanted = desired.networks.iter().filter_map(|(id, network)| match &network.want {
        Want::Bridge(bridge) => bridge.nat.map(|gateway| (*id, bridge, gateway)),
        Want::Overlay(_) | Want::Unmanaged(_) | Want::Unsupported(_) | Want::Nothing => None,
    });
    let ours = wanted.filter(|(id, bridge, _)| match survey.named(&bridge.name) {
        None => true,
        Some(Holder::Ours(_, owner)) => owner == *id,
        Some(
            Holder::OurVtep(..)
            | Holder::OurTap(..)
            | Holder::LeftOver(_)
            | Holder::Foreign(_)
            | Holder::Alternative(_),
        ) => false,
    });
    let mut ways_out: std::collections::BTreeMap<_, _> =
        ours.map(|(_, bridge, gateway)| (bridge.name.clone(), gateway)).collect();
    for (id, network) in &desired.networks {
        let Want::Bridge(DesiredBridge { name, nat: Some(gateway), .. }) = &network.want else { continue };
        let (ours, _) = survey.of_network(*id, name);
        ways_out.extend(ours.map(|link| (link.name.clone(), *gateway)));
    }
    for link in survey.unwanted_bridges(desired) {
        let ip = &survey.observed().ip;
        let addresses = ip.addresses.get(&link.index).filter(|_| ip.forwarding.contains(&link.index));
        let gateway = addresses.into_iter().flatten().find_map(|address| Gateway::on(*address));
        ways_out.extend(gateway.map(|gateway| (link.name.clone(), gateway)));
    }
    let known = survey.observed().firewall.rules.known();
    for (name, gateway) in known.iter().flat_map(|rules| &rules.ways_out) {
        if matches!(survey.named(name), Some(Holder::Ours(..))) {
            ways_out.entry(name.clone()).or_insert(*gateway);
        }
    }
    Ruleset { ways_out, vteps: vteps(desired, survey.observed()) }
}

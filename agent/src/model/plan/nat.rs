//! The way out of networks with NAT egress: our table of the packet filter, the gateway's address, and forwarding on the bridge
//! and the uplinks.
//!
//! No bridge gets its address or begins to forward before the table guards it, and the table guards it until it is gone.

use otherix_schemas::outcome::Outcome;

use super::step::{Changes, Failures, Step};
use super::survey::{Holder, Survey};
use super::text;
use crate::model::desired::{Desired, DesiredBridge, Want};
use crate::model::firewall::Ruleset;
use crate::model::observed::{Link, Observed};

pub(super) struct Nat {
    /// What our table must say; nothing if it is not this plan's to say.
    rules: Option<Ruleset>,
    /// It says something else.
    differs: bool,
    /// It says more than it must.
    shrinks: bool,
    /// It cannot be written for now.
    failure: Option<String>,
    /// Uplinks that do not forward yet: their index and name, or why they cannot.
    uplinks: Vec<(u32, String, Option<String>)>,
}

impl Nat {
    pub(super) fn new(desired: &Desired, survey: &Survey<'_>, failures: &Failures) -> Self {
        let observed = survey.observed();
        let rules = (!desired.is_former).then(|| ruleset(desired, survey));
        let differs = rules.as_ref().is_some_and(|rules| !observed.firewall.rules.are(rules));
        let shrinks = match (&rules, observed.firewall.rules.known()) {
            (Some(Ruleset(wanted)), Some(Ruleset(is))) => is.keys().any(|name| !wanted.contains_key(name)),
            (Some(_) | None, _) => false,
        };
        let is_used = rules.as_ref().is_some_and(|rules| !rules.0.is_empty());
        let idle = |link: &Link| is_used && !observed.ip.forwarding.contains(&link.index);
        let uplinks = observed.ip.uplinks.iter().filter_map(|index| observed.link(*index)).filter(|link| idle(link));
        let uplinks =
            uplinks.map(|link| (link.index, link.name.clone(), failures.devices.get(&link.index).cloned())).collect();
        Self { rules, differs, shrinks, failure: failures.rules.clone(), uplinks }
    }

    /// What concerns all networks.
    pub(super) fn steps(&self, observed: &Observed) -> Vec<Step> {
        let write = self.differs && self.failure.is_none();
        let rules = self.rules.iter().filter(|_| write).cloned().map(Step::Rules);
        let guarded = !observed.ip.uplinks.is_empty() && !self.differs;
        let uplinks = self.uplinks.iter().filter(|(_, _, failure)| guarded && failure.is_none());
        rules.chain(uplinks.map(|(index, name, _)| Step::Uplink { index: *index, name: name.clone() })).collect()
    }

    /// Whether the table still has what goes.
    pub(super) fn shrinks(&self) -> bool {
        self.shrinks && self.failure.is_none()
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
            changes.forwarding = forwards.then_some(false);
            return None;
        };
        if let Some(outcome) = self.in_the_way(observed, bridge, Some(index)) {
            return Some(outcome);
        }
        if self.differs {
            let error = self.failure.as_ref().map(|error| Outcome::Failed(error.clone()));
            return Some(error.unwrap_or_else(|| Outcome::Pending(text::UNGUARDED.to_owned())));
        }
        changes.address = Some(gateway.on_bridge()).filter(|address| !observed.ip.has(index, *address));
        changes.forwarding = (!forwards).then_some(true);
        if observed.ip.uplinks.is_empty() {
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
        let others = observed.ip.addresses.iter().filter(|(index, _)| Some(**index) != own);
        let mut addresses =
            others.flat_map(|(index, addresses)| addresses.iter().map(move |address| (*index, address)));
        let (index, address) = addresses.find(|(_, address)| address.overlaps(gateway.subnet))?;
        let link = observed.link(index)?;
        let text = text::overlap(gateway.subnet, link, *address);
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

/// All networks that need a way out; none whose bridge's name is somebody else's, for it is the name that the rules go by. And
/// those that are known to be guarded and whose bridge is still there.
fn ruleset(desired: &Desired, survey: &Survey<'_>) -> Ruleset {
    let wanted = desired.networks.iter().filter_map(|(id, network)| match &network.want {
        Want::Bridge(bridge) => bridge.nat.map(|gateway| (*id, bridge, gateway)),
        Want::Unmanaged(_) | Want::Unsupported(_) | Want::Nothing => None,
    });
    let ours = wanted.filter(|(id, bridge, _)| match survey.named(&bridge.name) {
        None => true,
        Some(Holder::Ours(_, owner)) => owner == *id,
        Some(Holder::OurTap(..) | Holder::LeftOver(_) | Holder::Foreign(_) | Holder::Alternative(_)) => false,
    });
    let mut rules: std::collections::BTreeMap<_, _> =
        ours.map(|(_, bridge, gateway)| (bridge.name.clone(), gateway)).collect();
    let known = survey.observed().firewall.rules.known();
    for (name, gateway) in known.iter().flat_map(|rules| &rules.0) {
        if matches!(survey.named(name), Some(Holder::Ours(..))) {
            rules.entry(name.clone()).or_insert(*gateway);
        }
    }
    Ruleset(rules)
}

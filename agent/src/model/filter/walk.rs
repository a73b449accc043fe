//! What the chains of other programs do with a packet on its way through the node.

use std::collections::BTreeSet;

use super::expression::Verdict;
use super::packet::{Packet, Tracking, View};
use super::rule::{State, apply};
use super::value::Mark;
use super::{BaseChain, Family, ForeignFilter, ForeignTable, Hook};

/// Most rules that are looked at for a packet at a base chain; beyond that the result is uncertain.
const RULES_MAX: u32 = 50_000;

/// Deepest nesting of chains: that of the kernel (`NFT_JUMP_STACK_SIZE`).
const DEPTH_MAX: u32 = 16;

/// The priority of connection tracking at its hooks (`NF_IP_PRI_CONNTRACK`).
const CONNTRACK: i32 = -200;

/// A hook that a packet passes.
#[derive(Clone, Debug)]
pub struct HookPoint {
    pub hook: Hook,
    /// `Ip`, `Arp`, `Bridge`, or `Netdev`.
    pub family: Family,
    pub packet: Packet,
    /// How chains of a lower priority see the packet: before its addresses are translated.
    pub before: Option<(i32, Packet)>,
}

/// What loses a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DropSource {
    pub family: Family,
    pub table: String,
    /// The base chain.
    pub chain: String,
    pub hook: Hook,
    /// The chain with the rule, if it is another one.
    pub within: Option<String>,
    pub cause: DropCause,
    /// Chains of the same table, by which the program that made it is recognised.
    pub maker: Maker,
}

/// How a packet is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropCause {
    /// No rule accepts it.
    Policy,
    Drops,
    Rejects,
    /// A program decides.
    Queues,
    /// It is sent elsewhere.
    Steals,
    /// Its connection is not tracked, so that addresses are not translated.
    Untracks,
}

/// The program that made a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Maker {
    Firewalld,
    Ufw,
    Docker,
    /// `iptables-nft`, or what uses it.
    Iptables,
    /// `nft`, or what uses it.
    Nft,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketOutcome {
    /// It does not pass.
    pub lost: Option<DropSource>,
    /// It may not pass.
    pub at_risk: BTreeSet<DropSource>,
}

/// The state that the packets of a connection leave to those that follow.
#[derive(Clone, Debug)]
pub struct ConnectionState(Mark);

impl ConnectionState {
    /// That of a connection without packets.
    pub fn new() -> Self {
        Self(Mark::NONE)
    }
}

impl Default for ConnectionState {
    fn default() -> Self {
        Self::new()
    }
}

/// The base chains, by the hook that they are at.
pub struct Filter<'a>(Vec<BaseChain<'a>>);

impl<'a> Filter<'a> {
    /// Returns the base chains in the order in which packets enter them.
    pub fn new(filter: &'a ForeignFilter) -> Self {
        let mut chains: Vec<_> = filter.base_chains().collect();
        chains.sort_by_key(|chain| chain.base.priority);
        Self(chains)
    }

    /// Returns what becomes of a packet that passes these hooks in order.
    pub fn send(&self, path: &[HookPoint], connection: &mut ConnectionState) -> PacketOutcome {
        let mut outcome = PacketOutcome::default();
        let mut state = State { mark: Mark::NONE, connection_mark: connection.0, tracking: Tracking::None };
        for point in path {
            for chain in self.0.iter().filter(|chain| is_at(chain, point)) {
                let packet = match &point.before {
                    Some((priority, packet)) if chain.base.priority < *priority => packet,
                    Some(_) | None => &point.packet,
                };
                if chain.base.nat && !packet.connection.is_new {
                    continue;
                }
                let was_exempt = is_exempt(state);
                state.tracking = tracking(point, chain, state.tracking);
                // At a link, tables of both families have different views.
                let family = if point.family == Family::Netdev { chain.table.family } else { point.family };
                let (result, next) = Walk::through(chain, family, packet, state);
                match result {
                    ChainOutcome::Lost(source) => {
                        outcome.lost = Some(source);
                        return outcome;
                    }
                    ChainOutcome::AtRisk(source) => {
                        outcome.at_risk.insert(source);
                    }
                    ChainOutcome::Free => {}
                }
                state = next.unwrap_or(state);
                if is_exempt(state) && !was_exempt && matches!(point.family, Family::Ip) && !packet.is_bridged {
                    outcome.lost = Some(drop_source(chain, None, DropCause::Untracks));
                    return outcome;
                }
            }
        }
        connection.0 = state.connection_mark;
        outcome
    }
}

fn is_exempt(state: State) -> bool {
    state.tracking == Tracking::Exempt
}

/// Whether the packet enters the chain at this point.
fn is_at(chain: &BaseChain<'_>, point: &HookPoint) -> bool {
    let is_family = match (chain.table.family, point.family) {
        (Family::Inet, Family::Netdev) => point.hook == Hook::Ingress,
        (Family::Inet, Family::Ip) => point.hook != Hook::Ingress,
        (family, at) => family == at,
    };
    let device = match point.hook {
        Hook::Ingress => &point.packet.input,
        Hook::Egress => &point.packet.output,
        Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Output | Hook::Postrouting => &None,
    };
    let is_device = device.as_ref().is_none_or(|device| {
        chain.base.devices.iter().any(|name| match name.strip_suffix('*') {
            Some(prefix) => device.name.starts_with(prefix),
            None => device.name == *name,
        })
    });
    is_family && chain.base.hook == point.hook && is_device
}

/// Whether the kernel knows the connection when the packet enters the chain.
fn tracking(point: &HookPoint, chain: &BaseChain<'_>, so_far: Tracking) -> Tracking {
    let is_early = chain.base.priority < CONNTRACK && matches!(point.hook, Hook::Prerouting | Hook::Output);
    match (point.family, so_far) {
        (_, Tracking::Exempt | Tracking::Unknown) => so_far,
        (Family::Arp, _) => Tracking::None,
        (Family::Netdev, _) if point.hook == Hook::Ingress => Tracking::None,
        (Family::Ip | Family::Inet | Family::Bridge, _) if is_early => Tracking::None,
        (Family::Ip | Family::Inet | Family::Bridge | Family::Netdev, Tracking::Tracked | Tracking::None) => {
            Tracking::Tracked
        }
    }
}

/// What becomes of a packet at a base chain.
enum ChainOutcome {
    Free,
    AtRisk(DropSource),
    Lost(DropSource),
}

/// What may become of a packet in a chain.
#[derive(Default)]
struct Ends {
    /// It may be lost by this.
    lost: Option<(String, DropCause)>,
    /// It may be accepted, in this state.
    accepted: Option<State>,
    /// It may go on behind the chain, in this state.
    left: Option<State>,
}

impl Ends {
    fn accept(&mut self, state: State) {
        join(&mut self.accepted, Some(state));
    }
}

fn join(state: &mut Option<State>, other: Option<State>) {
    *state = match (state.take(), other) {
        (Some(one), Some(other)) => Some(one.joined(other)),
        (one, other) => one.or(other),
    };
}

struct Walk<'a> {
    table: &'a ForeignTable,
    family: Family,
    packet: &'a Packet,
    rules: u32,
}

impl Walk<'_> {
    /// Returns what becomes of the packet, and the state that it leaves the chain in.
    fn through(chain: &BaseChain<'_>, family: Family, packet: &Packet, state: State) -> (ChainOutcome, Option<State>) {
        let mut walk = Walk { table: chain.table, family, packet, rules: 0 };
        let Ends { mut lost, accepted, left } = walk.enter(chain.name, state, 0);
        let mut passed = accepted;
        match left {
            Some(_) if chain.base.drops => {
                lost.get_or_insert((chain.name.to_owned(), DropCause::Policy));
            }
            left => join(&mut passed, left),
        }
        let passage = match lost {
            None => ChainOutcome::Free,
            Some((within, cause)) => {
                let is_certain = passed.is_none() && walk.rules < RULES_MAX && !matches!(cause, DropCause::Queues);
                let source = drop_source(chain, Some(within), cause);
                if is_certain { ChainOutcome::Lost(source) } else { ChainOutcome::AtRisk(source) }
            }
        };
        (passage, passed)
    }

    fn enter(&mut self, name: &str, state: State, depth: u32) -> Ends {
        let mut ends = Ends::default();
        let Some(chain) = self.table.chains.get(name).filter(|_| depth <= DEPTH_MAX) else {
            ends.left = Some(state);
            return ends;
        };
        // The state of a packet that no rule has decided on so far.
        let mut current = Some(state);
        for rule in &chain.rules {
            let Some(state) = current.take() else { break };
            self.rules += 1;
            if self.rules > RULES_MAX {
                ends.accept(state);
                current = Some(state);
                break;
            }
            let view = View {
                packet: self.packet,
                family: self.family,
                tracking: state.tracking,
                mark: state.mark,
                connection_mark: state.connection_mark,
            };
            let Some(effect) = apply(rule, self.table, view, state) else {
                current = Some(state);
                continue;
            };
            let is_certain = effect.is_certain && effect.verdicts.len() < 2;
            current = (!is_certain).then_some(state);
            if effect.verdicts.is_empty() {
                join(&mut current, Some(effect.state));
            }
            for verdict in &effect.verdicts {
                let next = self.decide(verdict, effect.state, (name, depth), &mut ends);
                join(&mut current, next);
            }
        }
        join(&mut ends.left, current);
        ends
    }

    /// Records what a verdict does in this chain, at this depth. Returns the state in which the packet goes on with the
    /// next rule, if it does.
    fn decide(
        &mut self,
        verdict: &Verdict,
        state: State,
        (within, depth): (&str, u32),
        ends: &mut Ends,
    ) -> Option<State> {
        let mut lose = |cause| {
            ends.lost.get_or_insert((within.to_owned(), cause));
        };
        match verdict {
            Verdict::Drop => lose(DropCause::Drops),
            Verdict::Reject => lose(DropCause::Rejects),
            Verdict::Steal => lose(DropCause::Steals),
            Verdict::Queue => {
                lose(DropCause::Queues);
                ends.accept(state);
            }
            Verdict::Accept => ends.accept(state),
            Verdict::Continue => return Some(state),
            Verdict::Return => join(&mut ends.left, Some(state)),
            Verdict::Jump(to) | Verdict::Goto(to) => {
                let Ends { lost, accepted, left } = self.enter(to, state, depth + 1);
                ends.lost = ends.lost.take().or(lost);
                join(&mut ends.accepted, accepted);
                if matches!(verdict, Verdict::Jump(_)) {
                    return left;
                }
                join(&mut ends.left, left);
            }
        }
        None
    }
}

fn drop_source(chain: &BaseChain<'_>, within: Option<String>, cause: DropCause) -> DropSource {
    DropSource {
        family: chain.table.family,
        table: chain.table.name.clone(),
        chain: chain.name.to_owned(),
        hook: chain.base.hook,
        within: within.filter(|within| within != chain.name),
        cause,
        maker: Maker::of(chain),
    }
}

impl Maker {
    fn of(chain: &BaseChain<'_>) -> Self {
        let BaseChain { table, name, .. } = chain;
        let has = |prefix: &str| table.chains.keys().any(|name| name.starts_with(prefix));
        // `iptables` has these tables, with chains in capitals.
        let is_iptables = matches!(table.family, Family::Ip)
            && matches!(table.name.as_str(), "filter" | "mangle" | "raw" | "nat" | "security")
            && name.chars().all(|letter| letter.is_ascii_uppercase());
        if table.name == "firewalld" {
            Self::Firewalld
        } else if is_iptables && has("ufw-") {
            Self::Ufw
        } else if is_iptables && has("DOCKER-USER") && *name == "FORWARD" {
            Self::Docker
        } else if is_iptables {
            Self::Iptables
        } else {
            Self::Nft
        }
    }
}

#[cfg(test)]
mod tests;

//! Encodes our table as one batch that replaces it, with libnftnl. Rules that concern the mesh are in [`mesh`].
//!
//! - forwarded between two bridges of ours: dropped; frames bridged within one, which pass this filter too if
//!   `bridge-nf-call-iptables` is on, are accepted;
//! - from a bridge of ours to the outside or to the node itself: only with a source address that is reachable through
//!   that bridge, in established connections too, because the reply to an address of another network would be delivered
//!   to that network;
//! - forwarded from a bridge of ours to the outside: not if it belongs to no connection, because it would keep its
//!   source address;
//! - forwarded from the outside to a bridge of ours: only if it belongs to a connection from inside;
//! - to a gateway's address: only from its own network, and from the node itself;
//! - from a bridge of ours to any other link: masqueraded.
//!
//! The rules of the single networks are in chains of their own, which only packets to a gateway and between bridges of
//! ours reach: all others are decided by three set look-ups, however many networks there are.

mod mesh;

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};

use nftnl::expr::{InterfaceName, ct::States};
use nftnl::nftnl_sys;
use nftnl::set::{Set, SetKey};
use nftnl::{Batch, Chain, ChainType, Hook, MsgType, Policy, ProtoFamily, Rule, Table, nft_expr};

use super::fib::ReversePath;
use crate::model::firewall::{Ruleset, TABLE};
use crate::model::ip::Gateway;

const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

/// The name of a link, padded to `IFNAMSIZ`, as the kernel compares it.
struct LinkName([u8; 16]);

impl SetKey for LinkName {
    /// The type `ifname` of nft.
    const TYPE: u32 = 41;
    const LEN: u32 = 16;

    fn data(&self) -> Box<[u8]> {
        Box::new(self.0)
    }
}

impl LinkName {
    fn new(name: &CStr) -> Self {
        let mut padded = [0; 16];
        padded.iter_mut().zip(name.to_bytes().iter().take(15)).for_each(|(to, from)| *to = *from);
        Self(padded)
    }
}

/// Encodes the batch that replaces our table, or removes it if it is not needed. The error is an invalid link name.
pub(super) fn replace(rules: &Ruleset) -> Result<Vec<u8>, String> {
    let name = CString::new(TABLE).map_err(|_| TABLE.to_owned())?;
    let table = Table::new(&name, ProtoFamily::Ipv4);
    let mut batch = Batch::new();
    // Deletes the table even if it does not exist, because it is added first.
    batch.add(&table, MsgType::Add);
    batch.add(&table, MsgType::Del);
    if !rules.is_empty() {
        let Ruleset { nat_networks, vteps } = rules;
        let networks = nat_networks.iter().map(|(name, gateway)| {
            let device = CString::new(name.as_str()).map_err(|_| name.clone())?;
            Ok((device, *gateway))
        });
        batch.add(&table, MsgType::Add);
        let networks = networks.collect::<Result<Vec<_>, String>>()?;
        let forward = add_base_chain(&mut batch, &table, c"forward", BaseChain::filter(Hook::Forward));
        let input = add_base_chain(&mut batch, &table, c"input", BaseChain::filter(Hook::In));
        let chains = FilterChains { forward, input };
        mesh::add_rules(&mut batch, &table, &chains, *vteps);
        if !networks.is_empty() {
            add_nat_rules(&mut batch, &table, &chains, &networks);
        }
    }
    Ok(batch.finalize().iter().flatten().copied().collect())
}

/// The base chains for forwarded packets and for those to the node itself.
struct FilterChains<'a> {
    forward: Chain<'a>,
    input: Chain<'a>,
}

fn add_nat_rules(batch: &mut Batch, table: &Table, chains: &FilterChains<'_>, networks: &[(CString, Gateway)]) {
    let FilterChains { forward, input } = chains;
    let mut bridges = Set::new_named(c"bridges", 1, table, ProtoFamily::Ipv4);
    set_host_order(&bridges);
    networks.iter().for_each(|(device, _)| bridges.add(&LinkName::new(device)));
    add_set(batch, &bridges);
    let mut gateways = Set::new_named(c"gateways", 2, table, ProtoFamily::Ipv4);
    let addresses: BTreeSet<_> = networks.iter().map(|(_, gateway)| gateway.address).collect();
    addresses.iter().for_each(|address| gateways.add(address));
    add_set(batch, &gateways);

    let between = add_network_chain(batch, table, c"between", networks, |rule, device, _| to_device(rule, device));
    let own = add_network_chain(batch, table, c"own", networks, |rule, _, gateway| {
        rule.add_expr(&nft_expr!(payload ipv4 daddr));
        rule.add_expr(&nft_expr!(cmp == gateway.address));
    });

    add_forward_rules(batch, forward, &bridges, &between);
    add_rule(batch, input, |rule| {
        from_ours(rule, &bridges);
        has_foreign_source(rule);
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, input, |rule| {
        rule.add_expr(&nft_expr!(meta iifname));
        rule.add_expr(&nft_expr!(cmp != InterfaceName::Exact(c"lo".to_owned())));
        rule.add_expr(&nft_expr!(payload ipv4 daddr));
        rule.add_expr(&nft_expr!(lookup & gateways));
        rule.add_expr(&nft_expr!(verdict jump own.clone()));
    });

    let srcnat = BaseChain { hook: Hook::PostRouting, priority: SRCNAT, kind: ChainType::Nat };
    let leave = add_base_chain(batch, table, c"leave", srcnat);
    add_rule(batch, &leave, |rule| {
        from_ours(rule, &bridges);
        to_ours(rule, &bridges);
        rule.add_expr(&nft_expr!(verdict return));
    });
    add_rule(batch, &leave, |rule| {
        from_ours(rule, &bridges);
        rule.add_expr(&nft_expr!(masquerade));
    });
}

/// Adds the rules for forwarded packets. `between` is the chain for those between bridges of ours.
fn add_forward_rules(batch: &mut Batch, forward: &Chain<'_>, bridges: &Set<'_, LinkName>, between: &CStr) {
    add_rule(batch, forward, |rule| {
        from_ours(rule, bridges);
        to_ours(rule, bridges);
        rule.add_expr(&nft_expr!(verdict jump between.to_owned()));
    });
    add_rule(batch, forward, |rule| {
        to_ours(rule, bridges);
        has_state(rule, States::ESTABLISHED | States::RELATED);
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, forward, |rule| {
        to_ours(rule, bridges);
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, forward, |rule| {
        from_ours(rule, bridges);
        has_foreign_source(rule);
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, forward, |rule| {
        from_ours(rule, bridges);
        has_state(rule, States::INVALID);
        rule.add_expr(&nft_expr!(verdict drop));
    });
}

/// Matches packets that were received on a bridge of ours.
fn from_ours(rule: &mut Rule<'_>, bridges: &Set<'_, LinkName>) {
    rule.add_expr(&nft_expr!(meta iifname));
    rule.add_expr(&nft_expr!(lookup bridges));
}

/// Matches packets that are sent to a bridge of ours.
fn to_ours(rule: &mut Rule<'_>, bridges: &Set<'_, LinkName>) {
    rule.add_expr(&nft_expr!(meta oifname));
    rule.add_expr(&nft_expr!(lookup bridges));
}

/// Declares host byte order of the keys, without which `nft list` shows no names. The kernel stores it and does not use
/// it.
#[expect(unsafe_code, reason = "nftnl has no safe function for a set's user data")]
fn set_host_order(set: &Set<'_, LinkName>) {
    /// One field: its type (`NFTNL_UDATA_SET_KEYBYTEORDER`), its length, and host byte order in four bytes.
    const HOST_ORDER: [u8; 6] = {
        let [a, b, c, d] = 1_u32.to_ne_bytes();
        [0, 4, a, b, c, d]
    };
    let length = HOST_ORDER.len() as u32;
    // SAFETY: the set is alive, and the call copies `length` bytes from a buffer of that length.
    unsafe {
        nftnl_sys::nftnl_set_set_data(
            set.as_ptr().as_ptr(),
            nftnl_sys::NFTNL_SET_USERDATA as u16,
            HOST_ORDER.as_ptr().cast(),
            length,
        );
    }
}

fn add_set<K: SetKey>(batch: &mut Batch, set: &Set<'_, K>) {
    batch.add(set, MsgType::Add);
    batch.add_iter(set.elems_iter(), MsgType::Add);
}

/// Where a base chain is hooked in.
struct BaseChain {
    hook: Hook,
    priority: i32,
    kind: ChainType,
}

impl BaseChain {
    const fn filter(hook: Hook) -> Self {
        Self { hook, priority: FILTER, kind: ChainType::Filter }
    }
}

fn add_base_chain<'a>(batch: &mut Batch, table: &'a Table, name: &CStr, base: BaseChain) -> Chain<'a> {
    let BaseChain { hook, priority, kind } = base;
    let mut chain = Chain::new(name, table);
    chain.set_hook(hook, priority);
    chain.set_type(kind);
    chain.set_policy(Policy::Accept);
    batch.add(&chain, MsgType::Add);
    chain
}

/// Adds a chain that accepts, for each network, packets from its bridge that match, and drops all others. Returns its
/// name.
fn add_network_chain(
    batch: &mut Batch,
    table: &Table,
    name: &CStr,
    networks: &[(CString, Gateway)],
    matches: impl Fn(&mut Rule<'_>, &CStr, &Gateway),
) -> CString {
    let chain = Chain::new(name, table);
    batch.add(&chain, MsgType::Add);
    for (device, gateway) in networks {
        add_rule(batch, &chain, |rule| {
            rule.add_expr(&nft_expr!(meta iifname));
            rule.add_expr(&nft_expr!(cmp == InterfaceName::Exact(device.clone())));
            matches(rule, device, gateway);
            rule.add_expr(&nft_expr!(verdict accept));
        });
    }
    add_rule(batch, &chain, |rule| rule.add_expr(&nft_expr!(verdict drop)));
    name.to_owned()
}

/// Matches packets of connections in one of these states.
fn has_state(rule: &mut Rule<'_>, states: States) {
    rule.add_expr(&nft_expr!(ct state));
    rule.add_expr(&nft_expr!(bitwise mask states.bits(), xor 0_u32));
    rule.add_expr(&nft_expr!(cmp != 0_u32));
}

/// Matches packets whose source address is not reachable through the link that they were received on.
fn has_foreign_source(rule: &mut Rule<'_>) {
    rule.add_expr(&ReversePath);
    rule.add_expr(&nft_expr!(cmp == 0_u32));
}

/// Matches packets that are sent to this device.
fn to_device(rule: &mut Rule<'_>, device: &CStr) {
    rule.add_expr(&nft_expr!(meta oifname));
    rule.add_expr(&nft_expr!(cmp == InterfaceName::Exact(device.to_owned())));
}

fn add_rule(batch: &mut Batch, chain: &Chain<'_>, fill: impl FnOnce(&mut Rule<'_>)) {
    let mut rule = Rule::new(chain);
    fill(&mut rule);
    batch.add(&rule, MsgType::Add);
}

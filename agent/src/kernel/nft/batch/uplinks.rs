//! Rules that keep the node from becoming a router: what arrives on a link that forwards only because this agent turned
//! it on is forwarded to guests, and nowhere else.

use std::collections::BTreeMap;
use std::ffi::CString;

use nftnl::expr::InterfaceName;
use nftnl::set::Set;
use nftnl::{Batch, Chain, MsgType, Table, nft_expr};

use super::sets::{LinkName, set_host_order};
use super::{FilterChains, add_rule, add_set, from_ours, to_device, to_ours};

/// Adds the rules. `uplinks` says of each whether it is a bridge; `bridges` are those of networks with NAT egress. The
/// error is an invalid link name.
pub(super) fn add_rules(
    batch: &mut Batch,
    table: &Table,
    chains: &FilterChains<'_>,
    uplinks: &BTreeMap<String, bool>,
    bridges: Option<&Set<'_, LinkName>>,
) -> Result<(), String> {
    let device = |name: &String| CString::new(name.as_str()).map_err(|_| name.clone());
    let mut names = Set::new_named(c"uplinks", 6, table, table.get_family());
    set_host_order(&names);
    for name in uplinks.keys() {
        names.add(&LinkName::new(&device(name)?));
    }
    add_set(batch, &names);
    let chain = Chain::new(c"through", table);
    batch.add(&chain, MsgType::Add);
    for (name, _) in uplinks.iter().filter(|(_, is_bridge)| **is_bridge) {
        // With `bridge-nf-call-iptables`, what is bridged between its ports.
        let device = device(name)?;
        add_rule(batch, &chain, |rule| {
            rule.add_expr(&nft_expr!(meta iifname));
            rule.add_expr(&nft_expr!(cmp == InterfaceName::Exact(device.clone())));
            to_device(rule, &device);
            rule.add_expr(&nft_expr!(verdict return));
        });
    }
    if let Some(bridges) = bridges {
        add_rule(batch, &chain, |rule| {
            to_ours(rule, bridges);
            rule.add_expr(&nft_expr!(verdict return));
        });
    }
    add_rule(batch, &chain, |rule| rule.add_expr(&nft_expr!(verdict drop)));
    add_rule(batch, &chains.forward, |rule| {
        from_ours(rule, &names);
        rule.add_expr(&nft_expr!(verdict jump c"through".to_owned()));
    });
    Ok(())
}

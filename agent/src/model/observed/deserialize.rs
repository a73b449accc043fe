//! Deserialises the observed state of the case folders of tests: a list of links, or an object with all parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Observed;
use crate::model::bridge_port::BridgePort;
use crate::model::filter::ForeignFilter;
use crate::model::firewall::Firewall;
use crate::model::ip::Ipv4Config;
use crate::model::link::Link;
use crate::model::mesh_device::MeshFaults;
use crate::model::need::Needs;
use crate::model::route_lookup::RouteLookups;
use crate::model::withdrawal::Withdrawals;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObservedParts {
    links: Vec<Link>,
    #[serde(default)]
    ports: BTreeMap<u32, BridgePort>,
    #[serde(default)]
    ip: Ipv4Config,
    #[serde(default)]
    firewall: Firewall,
    #[serde(default)]
    foreign: ForeignFilter,
    #[serde(default)]
    mesh_faults: MeshFaults,
    #[serde(default)]
    needs: Needs,
    #[serde(default)]
    vital: Option<BTreeSet<Ipv4Addr>>,
    #[serde(default)]
    route_lookups: RouteLookups,
    #[serde(default)]
    withdrawn: Withdrawals,
}

impl<'de> Deserialize<'de> for Observed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObservedVisitor)
    }
}

struct ObservedVisitor;

impl<'de> Visitor<'de> for ObservedVisitor {
    type Value = Observed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of links, or an observed state")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, links: A) -> Result<Observed, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(links)).map(Observed::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Observed, A::Error> {
        let ObservedParts { links, ports, ip, firewall, foreign, mesh_faults, needs, vital, route_lookups, withdrawn } =
            ObservedParts::deserialize(MapAccessDeserializer::new(object))?;
        let observed = Observed { ports, ip, firewall, mesh_faults, needs, ..Observed::from(links) };
        Ok(Observed { foreign: Arc::new(foreign), vital, route_lookups, withdrawn, ..observed })
    }
}

//! What the node itself must be able to reach.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The addresses that the node must be able to reach, with the most important reason for each.
pub type Needs = BTreeMap<Ipv4Addr, Need>;

/// Why the node must be able to reach an address; the most important reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// A NATS server.
    ControlPlane,
    /// Another node's endpoint in the mesh.
    MeshPeer,
    /// A DNS server.
    Resolver,
}

/// The node's connection to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// To this NATS server. Absent if it is not reached over IPv4.
    Up(Option<Ipv4Addr>),
    /// There is none, and has been none for a short time only.
    Interrupted,
    /// There has been none for some time.
    Lost,
}

impl Contact {
    /// Returns the addresses whose loss must be undone at once. While there is a connection, it alone counts: another
    /// server that cannot be reached harms nobody. `is_unresolved`: a server's name cannot be resolved.
    pub fn vital(self, needs: &Needs, is_unresolved: bool) -> BTreeSet<Ipv4Addr> {
        match self {
            Self::Up(server) => server.filter(|server| needs.contains_key(server)).into_iter().collect(),
            Self::Interrupted => BTreeSet::new(),
            Self::Lost => {
                let counts = |need: Need| need == Need::ControlPlane || (need == Need::Resolver && is_unresolved);
                needs.iter().filter(|(_, need)| counts(**need)).map(|(address, _)| *address).collect()
            }
        }
    }
}

impl Need {
    /// Adds an address that is needed for this reason. The node's own addresses are not needed.
    pub fn add(self, needs: &mut Needs, address: Ipv4Addr) {
        if address.is_loopback() || address.is_unspecified() {
            return;
        }
        let need = needs.entry(address).or_insert(self);
        *need = (*need).min(self);
    }
}

/// What the node needs the address for, as the end of a sentence.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlPlane => "to reach the control plane",
            Self::MeshPeer => "to reach another node of the mesh",
            Self::Resolver => "to resolve names",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_of_now_is_what_counts() {
        let [first, second, resolver] = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 53]].map(Ipv4Addr::from);
        let needs = Needs::from([
            (first, Need::ControlPlane),
            (second, Need::ControlPlane),
            (resolver, Need::Resolver),
            ([192, 0, 2, 9].into(), Need::MeshPeer),
        ]);
        assert_eq!(Contact::Up(Some(first)).vital(&needs, true), [first].into());
        assert!(Contact::Up(None).vital(&needs, true).is_empty());
        assert!(Contact::Interrupted.vital(&needs, true).is_empty());
        assert_eq!(Contact::Lost.vital(&needs, false), [first, second].into());
        assert_eq!(Contact::Lost.vital(&needs, true), [first, second, resolver].into());
    }
}

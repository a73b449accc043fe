//! Determines what the node must be able to reach: the NATS servers, the resolvers, the other nodes of the mesh.
//!
//! A name that cannot be resolved for now keeps the addresses that it had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Runtime, TaskSet};
use otherix_transport::NatsEndpoint;
use otherix_transport::nats::ServerAddress;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::model::mesh::DesiredMeshDevice;
use crate::model::need::{Need, Needs};

/// How often names are resolved and the configuration of the resolver is read.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long a name may take to be resolved.
const RESOLUTION: Duration = Duration::from_secs(2);

/// The configuration of the resolver, and those that local resolvers forward to.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Determines the needs once, and starts a task that follows them.
pub(super) async fn start(
    endpoint: &NatsEndpoint,
    runtime: &Arc<dyn Runtime>,
    tasks: &mut TaskSet<()>,
) -> watch::Receiver<Needs> {
    let servers = ServerAddress::parse_list(&endpoint.url).unwrap_or_default();
    let mut resolved = BTreeMap::new();
    let (sender, needs) = watch::channel(read(&servers, &mut resolved).await);
    tasks.add(runtime.spawn("needs", async move {
        loop {
            sleep(INTERVAL).await;
            let needs = read(&servers, &mut resolved).await;
            sender.send_if_modified(|before| {
                let is_changed = *before != needs;
                *before = needs;
                is_changed
            });
        }
    }));
    needs
}

/// Returns the ports of the NATS servers.
pub(super) fn ports(endpoint: &NatsEndpoint) -> BTreeSet<u16> {
    ServerAddress::parse_list(&endpoint.url).unwrap_or_default().into_iter().map(|server| server.port).collect()
}

/// Returns the NATS servers, at any of these ports.
pub(super) fn nats_servers(needs: &Needs, ports: &BTreeSet<u16>) -> BTreeSet<SocketAddrV4> {
    let addresses = needs.iter().filter(|(_, need)| **need == Need::ControlPlane);
    addresses.flat_map(|(address, _)| ports.iter().map(|port| SocketAddrV4::new(*address, *port))).collect()
}

/// `resolved`: the last addresses of each host.
async fn read(servers: &[ServerAddress], resolved: &mut BTreeMap<String, BTreeSet<Ipv4Addr>>) -> Needs {
    let mut needs = Needs::new();
    for ServerAddress { host, port } in servers {
        if let Ok(Ok(found)) = timeout(RESOLUTION, lookup_host((host.as_str(), *port))).await {
            resolved.insert(host.clone(), found.filter_map(|address| ipv4(address.ip())).collect());
        }
        let addresses = resolved.get(host).into_iter().flatten();
        addresses.for_each(|address| Need::ControlPlane.add(&mut needs, *address));
    }
    for path in RESOLVERS {
        let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
        name_servers(&text).for_each(|address| Need::Resolver.add(&mut needs, address));
    }
    needs
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    }
}

/// Parses the IPv4 addresses of resolv.conf(5).
fn name_servers(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    })
}

/// Adds the endpoints of the other nodes. Returns the mesh addresses of all nodes too.
pub(super) fn with_mesh(needs: &Needs, mesh: Option<&DesiredMeshDevice>) -> (Needs, BTreeSet<Ipv4Addr>) {
    let mut needs = needs.clone();
    let Some(DesiredMeshDevice { address, peers, .. }) = mesh else { return (needs, BTreeSet::new()) };
    let mut addresses = BTreeSet::from([*address]);
    for peer in peers.values() {
        Need::MeshPeer.add(&mut needs, *peer.endpoint.socket_addr().ip());
        addresses.insert(peer.address);
    }
    (needs, addresses)
}

/// Returns the needs that are among these addresses.
pub(super) fn of(needs: &Needs, addresses: &BTreeSet<Ipv4Addr>) -> Needs {
    needs.iter().filter(|(address, _)| addresses.contains(address)).map(|(address, need)| (*address, *need)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_name_servers() {
        let text =
            "# comment\nsearch example\nnameserver 192.0.2.53\nnameserver\t::1\n nameserver 127.0.0.53 # local\n";
        let all: Vec<_> = name_servers(text).map(|address| address.to_string()).collect();
        assert_eq!(all, ["192.0.2.53", "127.0.0.53"]);
        let mut needs = Needs::new();
        name_servers(text).for_each(|address| Need::Resolver.add(&mut needs, address));
        Need::ControlPlane.add(&mut needs, Ipv4Addr::new(192, 0, 2, 53));
        assert_eq!(needs, [(Ipv4Addr::new(192, 0, 2, 53), Need::ControlPlane)].into());
    }

    #[tokio::test]
    async fn names_keep_the_addresses_that_they_had() {
        let servers = ServerAddress::parse_list("nats://198.51.100.10:4222,nats://gone.invalid").unwrap();
        let gone = ("gone.invalid".to_owned(), BTreeSet::from([Ipv4Addr::new(198, 51, 100, 11)]));
        let needs = read(&servers, &mut BTreeMap::from([gone])).await;
        let control_plane = needs.iter().filter(|(_, need)| **need == Need::ControlPlane);
        assert_eq!(control_plane.map(|(address, _)| address.octets()[3]).collect::<Vec<_>>(), [10, 11]);
    }
}

//! Determines what the node must be able to reach: the NATS servers, the resolvers, the other nodes of the mesh.
//!
//! A name that cannot be resolved for now keeps the addresses that it had, also across a restart: `control-plane.json`
//! in the state folder has them, and the address of the server that the node was last connected to. Without it, a node
//! that cannot resolve the name because its resolver was taken away would not know what else was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Runtime, TaskSet, files};
use otherix_schemas::error::Causes;
use otherix_transport::NatsEndpoint;
use otherix_transport::nats::ServerAddress;
use serde::{Deserialize, Serialize};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::model::mesh::DesiredMeshDevice;
use crate::model::need::{Need, Needs};

const FILE: &str = "control-plane.json";

/// How often names are resolved and the configuration of the resolver is read.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long names may take to be resolved, all of them together.
const RESOLUTION: Duration = Duration::from_secs(2);

/// The configuration of the resolver, and those that local resolvers forward to.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// What the node must be able to reach, apart from other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeNeeds {
    pub(super) needs: Needs,
    /// The name of a NATS server cannot be resolved.
    pub(super) is_unresolved: bool,
}

/// The addresses of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KnownServers {
    /// The last addresses of each name.
    resolved: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// The server of the connection, or of the last one.
    connected: Option<Ipv4Addr>,
}

/// Name or address, and port.
type Host = (String, u16);

struct NeedsReader {
    servers: Vec<ServerAddress>,
    peer: watch::Receiver<Option<SocketAddr>>,
    folder: PathBuf,
    known: KnownServers,
    /// What the file has.
    saved: KnownServers,
    /// The names that are being resolved; one that takes longer is not asked for again meanwhile.
    asked: BTreeSet<Host>,
    answers: TaskSet<(Host, Option<BTreeSet<Ipv4Addr>>)>,
    runtime: Arc<dyn Runtime>,
}

/// Determines the needs once, and starts a task that follows them. `peer`: the server that the node is connected to.
pub(super) async fn start(
    endpoint: &NatsEndpoint,
    peer: watch::Receiver<Option<SocketAddr>>,
    folder: PathBuf,
    runtime: &Arc<dyn Runtime>,
    tasks: &mut TaskSet<()>,
) -> watch::Receiver<NodeNeeds> {
    let servers = ServerAddress::parse_list(&endpoint.url).unwrap_or_default();
    let mut reader = NeedsReader::new(servers, peer, folder, Arc::clone(runtime));
    let (sender, needs) = watch::channel(reader.read().await);
    tasks.add(runtime.spawn("needs", async move {
        loop {
            tokio::select! {
                () = sleep(INTERVAL) => {}
                // Without a sender there is no connection any more, and the agent ends.
                Ok(()) = reader.peer.changed() => {}
            }
            let needs = reader.read().await;
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

impl NeedsReader {
    fn new(
        servers: Vec<ServerAddress>,
        peer: watch::Receiver<Option<SocketAddr>>,
        folder: PathBuf,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        let read = files::read(&folder.join(FILE)).and_then(|content| {
            Ok(content.map(|content| serde_json::from_slice::<KnownServers>(&content)).transpose()?.unwrap_or_default())
        });
        let mut known = read.unwrap_or_else(|error| {
            tracing::warn!(error = %Causes(&error), file = FILE, "cannot read the last addresses of the control plane");
            KnownServers::default()
        });
        let saved = known.clone();
        known.resolved.retain(|host, _| servers.iter().any(|server| server.host == *host));
        let (asked, answers) = (BTreeSet::new(), TaskSet::default());
        Self { servers, peer, folder, known, saved, asked, answers, runtime }
    }

    async fn read(&mut self) -> NodeNeeds {
        if let Some(server) = *self.peer.borrow_and_update() {
            self.known.connected = ipv4(server.ip());
        }
        self.save();
        let is_unresolved = self.resolve().await;
        self.save();
        let mut needs = Needs::new();
        let KnownServers { resolved, connected } = &self.known;
        resolved.values().flatten().chain(connected).for_each(|server| Need::ControlPlane.add(&mut needs, *server));
        for path in RESOLVERS {
            let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
            name_servers(&text).for_each(|address| Need::Resolver.add(&mut needs, address));
        }
        NodeNeeds { needs, is_unresolved }
    }

    /// Resolves all names at the same time. Returns whether one of them could not be resolved in time.
    async fn resolve(&mut self) -> bool {
        for server in &self.servers {
            let server = (server.host.clone(), server.port);
            if self.asked.insert(server.clone()) {
                self.answers.add(self.runtime.spawn("resolve", async move {
                    let found = lookup_host(server.clone()).await;
                    let found = found.map(|found| found.filter_map(|address| ipv4(address.ip())).collect());
                    (server, found.ok())
                }));
            }
        }
        let deadline = Instant::now() + RESOLUTION;
        let mut is_unresolved = false;
        while let Ok(Some(answer)) = timeout_at(deadline, self.answers.join_next()).await {
            let Ok((server, found)) = answer else { continue };
            self.asked.remove(&server);
            is_unresolved |= found.is_none();
            if let Some(found) = found {
                self.known.resolved.insert(server.0, found);
            }
        }
        is_unresolved || !self.asked.is_empty()
    }

    /// Saves what is known now, before anything is made that could take it away.
    fn save(&mut self) {
        if self.known == self.saved {
            return;
        }
        let saved = serde_json::to_vec(&self.known).map_err(std::io::Error::from);
        match saved.and_then(|text| files::replace(&self.folder.join(FILE), &text)) {
            Ok(()) => self.saved = self.known.clone(),
            Err(error) => {
                tracing::warn!(error = %Causes(&error), file = FILE, "cannot save the addresses of the control plane");
            }
        }
    }
}

pub(super) fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
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
    use otherix_runtime::SystemRuntime;

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
        let folder = otherix_testkit::tempdir().unwrap();
        let servers = || ServerAddress::parse_list("nats://198.51.100.10:4222,nats://gone.invalid").unwrap();
        let (peer, receiver) = watch::channel(None);
        let reader = || NeedsReader::new(servers(), receiver.clone(), folder.path().into(), SystemRuntime::shared());
        let mut first = reader();
        let gone = ("gone.invalid".to_owned(), BTreeSet::from([Ipv4Addr::new(198, 51, 100, 11)]));
        first.known.resolved.extend([gone]);
        let control_plane = |NodeNeeds { needs, is_unresolved }: NodeNeeds| {
            assert!(is_unresolved);
            let needs = needs.into_iter().filter(|(_, need)| *need == Need::ControlPlane);
            needs.map(|(address, _)| address.octets()[3]).collect::<Vec<_>>()
        };
        assert_eq!(control_plane(first.read().await), [10, 11]);
        peer.send_replace(Some("198.51.100.12:4222".parse().unwrap()));
        assert_eq!(control_plane(first.read().await), [10, 11, 12]);
        peer.send_replace(None);
        assert_eq!(control_plane(reader().read().await), [10, 11, 12], "after a restart too");
    }
}

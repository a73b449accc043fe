//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use otherix_agent::wireguard::Backend;
use otherix_mesh::args::MeshArgs;
use otherix_observe::endpoint::MetricsArgs;
use otherix_observe::logs::LogArgs;
use otherix_responder::dns::PORT;
use otherix_schemas::value::{self, NodeName};
use otherix_vm::spec::Accelerator;

/// The otherix node agent: creates and maintains the network devices that the cluster requires on this node.
///
/// `otherix-agent join` makes this machine a node; `otherix-agent run` is the agent.
#[derive(Parser)]
#[command(name = "otherix-agent", version, after_help = ABOUT)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) command: AgentCommand,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

const ABOUT: &str = "\
Files in the state folder, for their owner only:
  connection.json the server, the cluster, and the name of this node; written by `otherix-agent join`
  ca.pem         the CA of the server, if its certificate is not from one that this machine trusts
  node.creds     the credentials of this node: its key never leaves it
  next.creds     exists while the key is rotated, until the agent uses it; before that, next.nk
  join.json      exists while a join is under way or was interrupted
  node.json      the id of this node, and a number that increases with each start of its agent
  ledger.json    the decisions of the cluster; the agent acts on them even if NATS is unreachable
  released.json  the cluster and epoch whose decisions may remove devices from this node
  held.json      exists while deletions are held back: the epoch and the devices
  withdrawn.json exists while networks are withdrawn, because with them the node did not reach the control plane
  uplinks.json   the devices whose forwarding the agent enabled since the machine started
  control-plane.json
                 the last addresses of the control plane
  problem.json   exists if something is wrong with the identity of this node, until the next start
  decision-key.json
                 the public key of the control plane; nothing is carried out that is not signed with it
  left           exists from `otherix-agent leave` on, until the control plane accepts the node
  contradiction.json
                 exists while the control plane contradicts what it has signed before
  joined         exists while the running agent has joined the cluster
  mesh.key       the private key of this node in the mesh, which never leaves the node
  mesh.key.next  exists while the key is rotated
  vms/           for each VM of this node its disk, the log of its console, and what the agent remembers of it
  images/        the images from which disks were made

OTHERIX_LOG sets the log level on stderr: error, warn, info (the default) or debug.";

/// The state folder, where the command line does not set it.
const STATE: &str = "/var/lib/otherix-agent";

#[derive(Subcommand)]
pub(crate) enum AgentCommand {
    /// Make this machine a node of a cluster, with a token from `otherix node join-token create`
    ///
    /// Makes the node's key on this machine, has it registered, and writes what the agent needs to the state folder.
    /// Starts and enables nothing: `otherix-agent run` does, or `systemctl enable --now otherix-agent`. If it is
    /// interrupted, repeat it with the same token. A token on the command line is visible to other processes of the
    /// machine while the command runs; one in a file is not.
    ///
    /// Exit code 7: the control plane does not answer, and trying again may help.
    #[command(after_help = JOIN_EXAMPLES)]
    Join(JoinOptions),
    /// Run the agent of this node until SIGTERM or SIGINT; the devices that it created stay
    Run(RunOptions),
    /// Release what the agent holds back: deletions, and networks that cut the node off
    ///
    /// Deletions are held back when the control plane is in another epoch, belongs to another cluster, or has fewer
    /// decisions than the node. The agent's log and `held.json` list the devices that are no longer required. Check
    /// them, then run this command on the node: a running agent applies it within seconds, a stopped one at its next
    /// start. Repeating it has no effect.
    ///
    /// A network with which the node could not reach the control plane was withdrawn from it, and is created again when
    /// it is updated or after it was released: once the cause is gone, run this command. With --network, only these
    /// networks are released, and no deletions.
    Release(ReleaseOptions),
    /// Have the agent remove all devices of otherix, because this node was removed from its cluster
    ///
    /// For a node that was removed while its agent was not connected: its key is revoked, and the agent cannot learn of
    /// the removal. Stop the agent, run this command, and start the agent again: it removes all devices of otherix from
    /// the machine, and reports nothing. If the control plane accepts the node after all, this has no effect.
    Leave(LeaveOptions),
    /// Show the cluster and identity of this node, whether its agent runs, and what is wrong with them
    Status(StatusOptions),
    /// Rotate a key of this node, and wait until the new key is in use
    ///
    /// Private keys never leave the node. The mesh key: the agent offers the new public key to the cluster; once the
    /// cluster has decided on it, all nodes switch to it. The NATS key, as which the node connects: the new one is
    /// valid beside the present one until the agent has connected with it, which revokes the present one.
    ///
    /// Exit code 124: the key is not in use yet, but will be once the agent runs and reaches the control plane.
    RotateKey(RotateKeyOptions),
    /// Run the mesh device of this node until SIGTERM or SIGINT; the TUN device stays
    ///
    /// The device is configured over a local socket with WireGuard's userspace protocol, by the agent or by `wg`, and
    /// runs on without either. The private key may also be in `mesh.key` of the state folder, in base64, readable by
    /// its owner only.
    Mesh(MeshArgs),
    /// Become the QEMU process of a VM; the agent runs this, and nobody else
    #[command(hide = true)]
    VmLaunch(LaunchOptions),
}

const JOIN_EXAMPLES: &str = "\
Examples:
  otherix-agent join --token-file /root/node-7.token
  ssh admin-host otherix node join-token create | otherix-agent join --token-file -
  otherix-agent join otherix-join-1.eyJzZXJ2ZXIi… --name node-7";

/// The state folder.
#[derive(Args)]
pub(crate) struct StateFolder {
    /// The state folder of this node's agent
    #[arg(long, value_name = "DIR", alias = "state-dir", default_value = STATE)]
    pub(crate) state: PathBuf,
}

#[derive(Args)]
pub(crate) struct JoinOptions {
    /// The join token, or `-` for standard input
    #[arg(value_name = "TOKEN", required_unless_present = "token_file", conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// The file of the join token, readable by its owner only, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) state: StateFolder,
    /// The node's name in the cluster [default: that of the token, or this machine's host name]
    #[arg(long, value_name = "NODE_NAME")]
    pub(crate) name: Option<NodeName>,
    /// The URL of NATS [default: that of the token]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
}

#[derive(Args)]
pub(crate) struct RunOptions {
    /// The URL of NATS, for example nats://10.0.0.1:4222; it need not be reachable yet [default: as joined]
    #[arg(long, value_name = "URL", env = "OTHERIX_NATS_URL")]
    pub(crate) nats: Option<String>,
    /// The node's credentials [default: as joined]
    #[arg(long, value_name = "FILE", env = "OTHERIX_CREDENTIALS")]
    pub(crate) credentials: Option<PathBuf>,
    /// The certificate of the CA that has issued the NATS server's: servers without one, and plain text, are refused
    /// [default: as joined]
    #[arg(long, value_name = "FILE", env = "OTHERIX_CA")]
    pub(crate) ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) state: StateFolder,
    /// The node's name in the cluster [default: as joined]
    #[arg(long, value_name = "NODE_NAME")]
    pub(crate) name: Option<NodeName>,
    /// The implementation of the mesh, which carries overlays between the nodes
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub(crate) mesh: MeshBackend,
    /// The address at which other nodes reach this one [default: that of its connection to NATS, with --mesh-port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) mesh_endpoint: Option<value::MeshEndpoint>,
    /// The UDP port of the mesh
    #[arg(long, value_name = "PORT", default_value_t = 51820, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) mesh_port: u16,
    /// The UDP port of VXLAN, within the mesh; the same on all nodes. Another if other software of the node uses it
    #[arg(long, value_name = "PORT", default_value_t = 4789, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) vxlan_port: u16,
    /// The folder of the mesh device's local socket; `wg` uses the default folder
    #[arg(long, value_name = "DIR", default_value = "/var/run/wireguard")]
    pub(crate) mesh_socket_dir: PathBuf,
    /// QEMU, which runs VMs [default: qemu-system-x86_64 on PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) qemu: Option<PathBuf>,
    /// What executes the instructions of guests; `auto` is KVM if a kernel boots with it, else TCG
    #[arg(long, value_name = "ACCELERATOR", default_value = "auto")]
    pub(crate) accel: AcceleratorChoice,
    /// How much disk space images of VMs may have in all, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) image_cache_gib: u32,
    /// How many virtual processors VMs on this node may have in all [default: four for each processor]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) vm_vcpus: Option<u32>,
    /// How much memory VMs on this node may have in all, in MiB [default: 80 % of it]
    #[arg(long, value_name = "MIB")]
    pub(crate) vm_memory_mb: Option<u32>,
    /// How much disk VMs on this node may have in all, in GiB [default: 90 % of the disk that the state folder is on,
    /// without what images may have]
    #[arg(long, value_name = "GIB")]
    pub(crate) vm_disk_gib: Option<u32>,
    /// A resolver of other names than those of VMs, for guests on networks with --dns and NAT egress; may be repeated
    /// [default: those of /etc/resolv.conf, as it is at the time]
    #[arg(long = "dns-upstream", value_name = "ADDRESS[:PORT]")]
    pub(crate) dns_upstreams: Vec<DnsUpstream>,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
}

/// A resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DnsUpstream(pub(crate) SocketAddr);

impl FromStr for DnsUpstream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let resolver = bare.parse().map(|address| SocketAddr::new(address, PORT)).or_else(|_| text.parse());
        let resolver: SocketAddr =
            resolver.map_err(|_| "must be an address: 192.0.2.53, 192.0.2.53:5353 or [2001:db8::1]:53")?;
        if resolver.ip().is_unspecified() || resolver.ip().is_multicast() || resolver.port() == 0 {
            return Err("must be the address of a host, and a port other than 0");
        }
        Ok(Self(resolver))
    }
}

/// What executes guests.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum AcceleratorChoice {
    /// Found out at each start of the agent
    Auto,
    /// The processor
    Kvm,
    /// QEMU, ten times slower or more; works everywhere
    Tcg,
}

impl AcceleratorChoice {
    pub(crate) const fn configured(self) -> Option<Accelerator> {
        match self {
            Self::Auto => None,
            Self::Kvm => Some(Accelerator::Kvm),
            Self::Tcg => Some(Accelerator::Tcg),
        }
    }
}

/// The launcher of a VM's process, which the agent starts.
#[derive(Args)]
pub(crate) struct LaunchOptions {
    /// The VM's folder
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

/// The implementations of the mesh.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum MeshBackend {
    /// The kernel's WireGuard if there is one, else the process `otherix-mesh`; an existing device stays
    Auto,
    /// The kernel's WireGuard
    Kernel,
    /// The process `otherix-mesh`
    Userspace,
    /// None: this node does not take part in overlays
    None,
}

impl MeshBackend {
    pub(crate) const fn backend(self) -> Option<Backend> {
        match self {
            Self::Auto => Some(Backend::Auto),
            Self::Kernel => Some(Backend::Kernel),
            Self::Userspace => Some(Backend::Userspace),
            Self::None => None,
        }
    }
}

/// The keys of a node.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum NodeKey {
    /// The WireGuard key, by which other nodes know this one
    Mesh,
    /// The key as which the node connects to NATS
    Nats,
}

#[derive(Args)]
pub(crate) struct RotateKeyOptions {
    #[command(flatten)]
    pub(crate) state: StateFolder,
    /// The key to rotate
    #[arg(long, value_name = "KEY", default_value = "mesh")]
    pub(crate) key: NodeKey,
    /// The time to wait for the new key to be in use, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait_timeout: u64,
}

#[derive(Args)]
pub(crate) struct ReleaseOptions {
    #[command(flatten)]
    pub(crate) state: StateFolder,
    /// Release this network, which was withdrawn from this node, and no deletions; may be repeated
    #[arg(long = "network", value_name = "NAME|ID")]
    pub(crate) networks: Vec<String>,
}

#[derive(Args)]
pub(crate) struct LeaveOptions {
    #[command(flatten)]
    pub(crate) state: StateFolder,
}

#[derive(Args)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    pub(crate) state: StateFolder,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_have_an_address_and_may_have_a_port() {
        for (text, expected) in [
            ("192.0.2.53", Some("192.0.2.53:53")),
            ("192.0.2.53:5353", Some("192.0.2.53:5353")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]:54", Some("[2001:db8::1]:54")),
            ("dns.example", None),
            ("192.0.2.53:0", None),
            ("0.0.0.0", None),
            ("224.0.0.1", None),
            ("", None),
        ] {
            let parsed = text.parse().map(|DnsUpstream(address)| address.to_string()).ok();
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }
}

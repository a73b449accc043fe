//! The program `otherix-agent`: parses its command line, and runs the agent until SIGTERM or SIGINT.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use otherix_agent::agent::{self, AgentConfig};
use otherix_agent::contradiction::{self, Contradiction};
use otherix_agent::release::{self, HeldDevice, ReleaseOutcome};
use otherix_agent::status;
use otherix_agent::wireguard::rotation::{self, Rotation, RotationError};
use otherix_agent::wireguard::{Backend, MeshTaskOptions};
use otherix_agent::withdrawn::{self, WithdrawnNetwork};
use otherix_mesh::args::MeshArgs;
use otherix_runtime::{ClockError, SystemRuntime, check_clock};
use otherix_schemas::error::Causes;
use otherix_schemas::value::{self, NodeName};
use otherix_transport::{Credentials, NatsEndpoint, TrustedCa};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The otherix node agent: creates and maintains the network devices that the cluster requires on this node.
#[derive(Parser)]
#[command(name = "otherix-agent", version, after_help = ABOUT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const ABOUT: &str = "\
Files in the state folder, for their owner only:
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
  contradiction.json
                 exists while the control plane contradicts what it has signed before
  joined         exists while the agent has joined the cluster
  mesh.key       the private key of this node in the mesh, which never leaves the node
  mesh.key.next  exists while the key is rotated

OTHERIX_LOG sets the log level on stderr: error, warn, info (the default) or debug.";

#[derive(Subcommand)]
enum Command {
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
    /// Show the identity of this node, whether its agent runs, and what is wrong with them
    Status(StatusOptions),
    /// Rotate the mesh key of this node, and wait until the new key is in use
    ///
    /// The agent offers the new public key to the cluster; once the cluster has decided on it, all nodes switch to it.
    /// Private keys never leave the node. Exit code 124: the key is not in use yet, but will be once the agent runs and
    /// reaches the control plane.
    RotateKey(RotateKeyOptions),
    /// Run the mesh device of this node until SIGTERM or SIGINT; the TUN device stays
    ///
    /// The device is configured over a local socket with WireGuard's userspace protocol, by the agent or by `wg`, and
    /// runs on without either. The private key may also be in `mesh.key` of the state folder, in base64, readable by
    /// its owner only.
    Mesh(MeshArgs),
}

/// The exit code of a wait that timed out, the same as of `otherix --wait`.
const TIMED_OUT: u8 = 124;

#[derive(Args)]
struct RunOptions {
    /// The URL of NATS, for example nats://10.0.0.1:4222; it need not be reachable yet
    #[arg(long, value_name = "URL", env = "OTHERIX_NATS_URL")]
    nats: String,
    /// The node's credentials
    #[arg(long, value_name = "FILE", env = "OTHERIX_CREDENTIALS")]
    credentials: PathBuf,
    /// The certificate of the CA that has issued the NATS server's: servers without one, and plain text, are refused
    #[arg(long, value_name = "FILE", env = "OTHERIX_CA")]
    ca: Option<PathBuf>,
    /// The state folder, with the node's identity and ledger; created at the first start
    #[arg(long, value_name = "DIR", alias = "state-dir")]
    state: PathBuf,
    /// The node's name in the cluster
    #[arg(long, value_name = "NODE_NAME")]
    name: NodeName,
    /// The implementation of the mesh, which carries overlays between the nodes
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    mesh: MeshBackend,
    /// The address at which other nodes reach this one [default: that of its connection to NATS, with --mesh-port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    mesh_endpoint: Option<value::MeshEndpoint>,
    /// The UDP port of the mesh
    #[arg(long, value_name = "PORT", default_value_t = 51820, value_parser = clap::value_parser!(u16).range(1..))]
    mesh_port: u16,
    /// The UDP port of VXLAN, within the mesh; the same on all nodes. Another if other software of the node uses it
    #[arg(long, value_name = "PORT", default_value_t = 4789, value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: u16,
    /// The folder of the mesh device's local socket; `wg` uses the default folder
    #[arg(long, value_name = "DIR", default_value = "/var/run/wireguard")]
    mesh_socket_dir: PathBuf,
}

/// The implementations of the mesh.
#[derive(Clone, Copy, clap::ValueEnum)]
enum MeshBackend {
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
    const fn backend(self) -> Option<Backend> {
        match self {
            Self::Auto => Some(Backend::Auto),
            Self::Kernel => Some(Backend::Kernel),
            Self::Userspace => Some(Backend::Userspace),
            Self::None => None,
        }
    }
}

#[derive(Args)]
struct RotateKeyOptions {
    /// The state folder of this node's agent
    #[arg(long, value_name = "DIR", alias = "state-dir")]
    state: PathBuf,
    /// The time to wait for the new key to be in use, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait_timeout: u64,
}

#[derive(Args)]
struct ReleaseOptions {
    /// The state folder of this node's agent
    #[arg(long, value_name = "DIR", alias = "state-dir")]
    state: PathBuf,
    /// Release this network, which was withdrawn from this node, and no deletions; may be repeated
    #[arg(long = "network", value_name = "NAME|ID")]
    networks: Vec<String>,
}

#[derive(Args)]
struct StatusOptions {
    /// The state folder of this node's agent
    #[arg(long, value_name = "DIR", alias = "state-dir")]
    state: PathBuf,
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let filter =
        EnvFilter::try_from_env("OTHERIX_LOG").unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn,boringtun=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    let done = match command {
        Command::Run(options) => start(options),
        Command::Release(ReleaseOptions { state, networks }) => release(&state, &networks),
        Command::Status(StatusOptions { state }) => show_status(&state),
        Command::RotateKey(options) => rotate_key(&options),
        Command::Mesh(mesh) => mesh.run().map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", Causes(error.as_ref()));
            match error.downcast_ref() {
                Some(RotationError::Timeout(_)) => ExitCode::from(TIMED_OUT),
                Some(RotationError::NoState(_) | RotationError::NoKey(_) | RotationError::Key(_)) | None => {
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn release(folder: &Path, networks: &[String]) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout();
    let released = withdrawn::release(folder, networks)?;
    for (id, WithdrawnNetwork { name, .. }) in &released {
        writeln!(out, "released network {name} ({id}), which is created again on this node")?;
    }
    let is_released = |text: &String| released.iter().any(|(id, network)| network.is_named(*id, text));
    if let Some(text) = networks.iter().find(|text| !is_released(text)) {
        return Err(format!("no network `{text}` was withdrawn from this node").into());
    }
    if !networks.is_empty() {
        return Ok(());
    }
    if let Some(Contradiction { text, .. }) = contradiction::accept(folder)? {
        writeln!(out, "accepted another history than this node's: {text}")?;
        writeln!(out, "the node reads all decisions again, and holds deletions back until they are released as well")?;
        return Ok(());
    }
    match release::release(folder)? {
        ReleaseOutcome::Released(held) => {
            writeln!(out, "released {}: {} devices will be removed", held.lineage, held.devices.len())?;
            for HeldDevice { name, owner, cluster } in held.devices {
                writeln!(out, "{name} (created for {owner} of cluster {cluster})")?;
            }
        }
        ReleaseOutcome::AlreadyReleased(lineage) => writeln!(out, "{lineage} is already released")?,
        ReleaseOutcome::NothingHeld => writeln!(out, "nothing is held back")?,
    }
    Ok(())
}

fn show_status(folder: &Path) -> Result<(), Box<dyn Error>> {
    write!(io::stdout(), "{}", status::read(folder)?)?;
    Ok(())
}

fn rotate_key(options: &RotateKeyOptions) -> Result<(), Box<dyn Error>> {
    let RotateKeyOptions { state, wait_timeout } = options;
    let Rotation { previous, current } = rotation::rotate(state, Duration::from_secs(*wait_timeout))?;
    writeln!(io::stdout(), "the mesh key is now {current}, and was {previous}")?;
    Ok(())
}

fn start(options: RunOptions) -> Result<(), Box<dyn Error>> {
    let RunOptions { nats, credentials, ca, state, name, mesh, mesh_endpoint, mesh_port, vxlan_port, mesh_socket_dir } =
        options;
    let endpoint = NatsEndpoint::new(nats, Credentials::load(&credentials)?);
    let endpoint = endpoint.with_ca(ca.as_deref().map(TrustedCa::load).transpose()?);
    // The node restores its networks whatever the clock says; it may be set later.
    if let Err(error) = check_clock(&SystemRuntime) {
        tracing::warn!(%error, "other nodes may ignore this one: {}", ClockError::HINT);
    }
    let mesh = mesh.backend().map(|backend| MeshTaskOptions {
        backend,
        endpoint: mesh_endpoint,
        port: mesh_port,
        vxlan_port,
        socket_folder: mesh_socket_dir,
        program: None,
    });
    let config = AgentConfig { endpoint, state, name, mesh };
    // One thread suffices: the agent mostly waits, and the kernel serializes changes of links.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ran = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping; the devices of this node stay");
        };
        Ok(agent::run(config, stop).await?)
    });
    // A step that was started is completed by the kernel.
    runtime.shutdown_background();
    ran
}

//! The program `otherix-agent`: reads its command line, and runs the agent until it is told to stop.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use otherix_agent::agent::{self, Config};
use otherix_agent::mesh;
use otherix_agent::release::{self, HeldDevice, Release};
use otherix_agent::wireguard;
use otherix_agent::wireguard::rotation::{self, Rotated, RotationError};
use otherix_schemas::error::Causes;
use otherix_schemas::value::{self, NodeName};
use otherix_transport::{Credentials, NatsEndpoint};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The otherix node agent: makes this machine's links what the cluster's networks ask for.
#[derive(Parser)]
#[command(name = "otherix-agent", version, after_help = ABOUT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const ABOUT: &str = "\
Files in the state folder, for their owner only:
  node.json      who this node is, and how often its agent was started
  ledger.json    what the cluster has decided; the agent begins with it, whoever else is in reach
  released.json  the cluster and epoch that may have devices removed from this node
  held.json      there while deletions are held back: of which epoch, and of which devices
  joined         there while the agent has joined the cluster
  mesh.key       this node's private key for the mesh, which never leaves it
  mesh.key.next  there while a new key is being introduced

OTHERIX_LOG sets what is logged to stderr: error, warn, info (the default) or debug.";

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this node, until SIGTERM or SIGINT; what it has made stays
    Run(Run),
    /// Let the agent remove what it holds back since the control plane was restored or exchanged
    ///
    /// Deletions are held back when the node finds itself in another epoch or another cluster than before, or when the control
    /// plane knows less than the node. The agent's log and `held.json` name the devices that are no longer wanted. Look at them, then run
    /// this on the node: a running agent takes notice within seconds, one that is stopped at its next start. Running it
    /// again changes nothing.
    Release(ReleaseOptions),
    /// Give this node a new key for the mesh, and wait until it is in use
    ///
    /// The agent offers the new key's public half to the cluster; once that is decided, every node goes over to it in the same
    /// moment. The private halves never leave the node. Exit code 124: it is not in use yet, and will be once the agent runs
    /// and reaches the control plane.
    RotateKey(RotateKey),
    /// Run the mesh device of this node, until SIGTERM or SIGINT; the TUN device stays
    ///
    /// It is configured over a local socket, in WireGuard's userspace protocol, by the agent or by `wg`; it needs neither to
    /// go on. A private key may also be in `mesh.key` of the state folder, in base64, for its owner only.
    Mesh(MeshOptions),
}

/// The exit code of a wait that took too long, as `otherix --wait` has it.
const TIMED_OUT: u8 = 124;

#[derive(Args)]
struct MeshOptions {
    /// The TUN device; made if it is not there
    #[arg(long, value_name = "DEVICE", default_value = "otwg0")]
    name: String,
    /// The folder of the local socket; `wg` looks in the one that is the default
    #[arg(long, value_name = "DIR", default_value = "/var/run/wireguard")]
    socket_dir: PathBuf,
    /// The folder that may hold the private key
    #[arg(long, value_name = "DIR", alias = "state-dir")]
    state: Option<PathBuf>,
    /// The UDP port to listen on; 0 for any that is free
    #[arg(long, default_value_t = 51820)]
    port: u16,
    /// The MTU of a TUN device that is made: the underlay's less 60
    #[arg(long, default_value_t = 1440, value_parser = clap::value_parser!(u16).range(68..))]
    mtu: u16,
    /// The alias that the TUN device is made with; with one, no device without it is used
    #[arg(long)]
    alias: Option<String>,
    /// Leave the terminal's and the service's session: what ends those does not end this
    #[arg(long)]
    detach: bool,
    /// Which large packets the kernel may hand over at most
    #[arg(long, value_enum, default_value = "tunnel", hide = true)]
    offload: mesh::Offload,
}

#[derive(Args)]
struct Run {
    /// Where NATS is, for example nats://10.0.0.1:4222; it need not be there yet
    #[arg(long, value_name = "URL", env = "OTHERIX_NATS_URL")]
    nats: String,
    /// The node's credentials
    #[arg(long, value_name = "FILE", env = "OTHERIX_CREDENTIALS")]
    credentials: PathBuf,
    /// The folder that keeps the node's identity and ledger; made at the first start
    #[arg(long, value_name = "DIR", alias = "state-dir")]
    state: PathBuf,
    /// The node's name in the cluster
    #[arg(long, value_name = "NODE_NAME")]
    name: NodeName,
    /// What carries overlays between the nodes: WireGuard of the kernel or of a process of ours, or nothing on this node
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    mesh: MeshBackend,
    /// Where other nodes reach this one [default: the address that it reaches NATS from, with --mesh-port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    mesh_endpoint: Option<value::MeshEndpoint>,
    /// The UDP port that the mesh listens on
    #[arg(long, value_name = "PORT", default_value_t = 51820, value_parser = clap::value_parser!(u16).range(1..))]
    mesh_port: u16,
    /// The folder of the mesh device's local socket; `wg` looks in the one that is the default
    #[arg(long, value_name = "DIR", default_value = "/var/run/wireguard")]
    mesh_socket_dir: PathBuf,
}

/// What carries the mesh.
#[derive(Clone, Copy, clap::ValueEnum)]
enum MeshBackend {
    /// The kernel's WireGuard where it has one, else the process `otherix-agent mesh`; what is there already stays
    Auto,
    /// The kernel's WireGuard
    Kernel,
    /// The process `otherix-agent mesh`
    Userspace,
    /// Nothing: this node takes no part in overlays
    None,
}

impl MeshBackend {
    const fn backend(self) -> Option<wireguard::Backend> {
        match self {
            Self::Auto => Some(wireguard::Backend::Auto),
            Self::Kernel => Some(wireguard::Backend::Kernel),
            Self::Userspace => Some(wireguard::Backend::Userspace),
            Self::None => None,
        }
    }
}

#[derive(Args)]
struct RotateKey {
    /// The state folder of this node's agent
    #[arg(long, value_name = "DIR", alias = "state-dir")]
    state: PathBuf,
    /// How many seconds to wait for the new key to be in use
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait_timeout: u64,
}

#[derive(Args)]
struct ReleaseOptions {
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
        Command::Release(ReleaseOptions { state }) => release(&state),
        Command::RotateKey(options) => rotate_key(&options),
        Command::Mesh(options) => run_mesh(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", Causes(error.as_ref()));
            match error.downcast_ref() {
                Some(RotationError::Waiting(_)) => ExitCode::from(TIMED_OUT),
                Some(RotationError::NoState(_) | RotationError::NoKey(_) | RotationError::Key(_)) | None => {
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn release(folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout();
    match release::release(folder)? {
        Release::Done(held) => {
            writeln!(out, "released {}: {} devices will be removed", held.lineage, held.devices.len())?;
            for HeldDevice { name, owner, cluster } in held.devices {
                writeln!(out, "{name} (made for {owner} of cluster {cluster})")?;
            }
        }
        Release::Before(lineage) => writeln!(out, "{lineage} is released already")?,
        Release::Nothing => writeln!(out, "nothing is held back")?,
    }
    Ok(())
}

fn rotate_key(options: &RotateKey) -> Result<(), Box<dyn Error>> {
    let RotateKey { state, wait_timeout } = options;
    let Rotated { before, now } = rotation::rotate(state, Duration::from_secs(*wait_timeout))?;
    writeln!(io::stdout(), "the mesh's key is {now} now, and was {before}")?;
    Ok(())
}

fn start(options: Run) -> Result<(), Box<dyn Error>> {
    let Run { nats, credentials, state, name, mesh, mesh_endpoint, mesh_port, mesh_socket_dir } = options;
    let credentials = Credentials::load(&credentials)?;
    let mesh = mesh.backend().map(|backend| wireguard::Options {
        backend,
        endpoint: mesh_endpoint,
        port: mesh_port,
        socket_folder: mesh_socket_dir,
        program: None,
    });
    let config = Config { endpoint: NatsEndpoint { url: nats, credentials }, state, name, mesh };
    // One thread: the work is waiting, and the kernel takes one change of links at a time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ran = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping; what runs on this node stays");
        };
        Ok(agent::run(config, stop).await?)
    });
    // A step that the kernel is busy with is finished by the kernel.
    runtime.shutdown_background();
    ran
}

/// The device has a thread of its own; this one waits for a signal to stop it, or for its end.
fn run_mesh(options: MeshOptions) -> Result<(), Box<dyn Error>> {
    let MeshOptions { name, socket_dir, state, port, mtu, alias, detach, offload } = options;
    if detach {
        rustix::process::setsid()?;
    }
    let options = mesh::Options { name, socket_folder: socket_dir, state, port, mtu, offload, alias };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (stop, stopped) = std::os::unix::net::UnixStream::pair()?;
        let (ended, mut end) = tokio::sync::oneshot::channel();
        let device = std::thread::Builder::new().name("mesh".to_owned()).spawn(move || {
            let _nobody_waits = ended.send(mesh::run(&options, &stopped));
        })?;
        let result = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            result = &mut end => Some(result),
        };
        drop(stop);
        let result = match result {
            Some(result) => result,
            None => {
                tracing::info!("stopping; the mesh's TUN device stays");
                end.await
            }
        };
        let _ended = device.join();
        Ok(result??)
    })
}

//! The program `otherix-agent`: runs the agent until SIGTERM or SIGINT, or one of the other commands.

mod command_line;

use std::error::Error;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use otherix_agent::agent::{self, AgentConfig};
use otherix_agent::connection::{self, ConnectionOverrides};
use otherix_agent::contradiction::{self, Contradiction};
use otherix_agent::join::{self, JoinError};
use otherix_agent::key_rotation::{self, KeyRotation, KeyRotationError};
use otherix_agent::left;
use otherix_agent::machines::{MachineOptions, Offer};
use otherix_agent::release::{self, HeldDevice, ReleaseOutcome};
use otherix_agent::status;
use otherix_agent::wireguard::MeshTaskOptions;
use otherix_agent::wireguard::rotation::{self, Rotation, RotationError};
use otherix_agent::withdrawn::{self, WithdrawnNetwork};
use otherix_agent::witness::{self, LogContradiction};
use otherix_identity::join_token::{JOIN_TOKEN_MAX, JoinToken};
use otherix_image::fetch::FetchSettings;
use otherix_observe::service_manager;
use otherix_runtime::files::PrivateFileError;
use otherix_runtime::{ClockError, SystemRuntime, check_clock, files};
use otherix_schemas::error::Causes;
use otherix_vm::process::Launcher;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use self::command_line::{
    AgentArgs, AgentCommand, JoinOptions, LaunchOptions, LeaveOptions, NodeKey, ReleaseOptions, RotateKeyOptions,
    RunOptions, StateFolder, StatusOptions,
};

/// The exit code of a wait that timed out, the same as of `otherix --wait`.
const TIMED_OUT: u8 = 124;

/// The exit code if the control plane does not answer, the same as of `otherix`.
const UNREACHABLE: u8 = 7;

fn main() -> ExitCode {
    let AgentArgs { command, log } = AgentArgs::parse();
    log.start("info,async_nats=warn,boringtun=off");
    let done = match command {
        AgentCommand::Join(options) => join_cluster(options),
        AgentCommand::Run(options) => start(options),
        AgentCommand::Release(ReleaseOptions { state, networks }) => release(&state.state, &networks),
        AgentCommand::Leave(LeaveOptions { state }) => leave(&state.state),
        AgentCommand::Status(StatusOptions { state }) => show_status(&state.state),
        AgentCommand::RotateKey(options) => rotate_key(&options),
        AgentCommand::Mesh(mesh) => mesh.run().map_err(Into::into),
        AgentCommand::VmLaunch(LaunchOptions { folder }) => Err(otherix_vm::launch::launch(&folder).into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", Causes(error.as_ref()));
            let is_timeout = matches!(error.downcast_ref(), Some(RotationError::Timeout(_)))
                || matches!(error.downcast_ref(), Some(KeyRotationError::Timeout(_)));
            if is_timeout {
                ExitCode::from(TIMED_OUT)
            } else if error.downcast_ref().is_some_and(JoinError::is_temporary) {
                ExitCode::from(UNREACHABLE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn join_cluster(options: JoinOptions) -> Result<(), Box<dyn Error>> {
    let JoinOptions { token, token_file, state: StateFolder { state }, name, server } = options;
    let text = match (token, token_file) {
        (Some(token), _) if token != "-" => Zeroizing::new(token),
        (None, Some(file)) if file != Path::new("-") => read_token(&file)?,
        (Some(_), _) | (None, _) => {
            let mut text = Zeroizing::new(String::with_capacity(JOIN_TOKEN_MAX));
            io::stdin().take(JOIN_TOKEN_MAX as u64 + 1).read_to_string(&mut text)?;
            text
        }
    };
    let token: JoinToken = text.parse().map_err(|error| Text("this is no join token", Box::new(error)))?;
    let options = join::JoinOptions { token, state, name, server };
    let state = options.state.clone();
    let joined = runtime()?.block_on(join::join(options, &mut |_| Ok(())))?;
    let mut out = io::stdout();
    writeln!(out, "joined cluster {} at {} as node {}", joined.cluster, joined.server, joined.name)?;
    writeln!(out, "the state folder is {}; nothing was started: run `otherix-agent run`, or", state.display())?;
    writeln!(out, "`systemctl enable --now otherix-agent`")?;
    Ok(())
}

/// An error with its cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Text(&'static str, #[source] Box<dyn Error>);

fn read_token(file: &Path) -> Result<Zeroizing<String>, Box<dyn Error>> {
    let content = files::read_private(file, JOIN_TOKEN_MAX as u64).map_err(|error| match error {
        PrivateFileError::Io(error) => format!("cannot read the token file `{}`: {error}", file.display()),
        PrivateFileError::Shared { mode } => {
            let file = file.display();
            format!("other users have access to the token file `{file}` (mode {mode:04o}): run `chmod 600 {file}`")
        }
    })?;
    let content = Zeroizing::new(content);
    Ok(Zeroizing::new(std::str::from_utf8(&content)?.to_owned()))
}

/// One thread suffices: the agent mostly waits, and the kernel serializes changes of links.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn leave(folder: &Path) -> Result<(), Box<dyn Error>> {
    left::leave(folder)?;
    writeln!(io::stdout(), "start the agent: it removes all devices of otherix, unless its control plane accepts it")?;
    Ok(())
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
    if let Some(LogContradiction { text, .. }) = witness::accept(folder)? {
        writeln!(out, "accepted another transparency log than the one that this node knew: {text}")?;
        writeln!(out, "what the node has kept of it is in `witness-before-release.json`")?;
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
    let RotateKeyOptions { state: StateFolder { state }, key, wait_timeout } = options;
    let timeout = Duration::from_secs(*wait_timeout);
    let mut out = io::stdout();
    match key {
        NodeKey::Mesh => {
            let Rotation { previous, current } = rotation::rotate(state, timeout)?;
            writeln!(out, "the mesh key is now {current}, and was {previous}")?;
        }
        NodeKey::Nats => {
            let rotated = runtime()?.block_on(key_rotation::rotate(state, timeout, &mut |_| Ok(())));
            let KeyRotation { previous, current } = rotated?;
            writeln!(out, "the NATS key is now {current}, and was {previous}")?;
        }
    }
    Ok(())
}

/// How many files the agent may have open, if it is permitted: each guest takes some, and so do relayed questions.
const OPEN_FILES: u64 = 65_536;

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn start(options: RunOptions) -> Result<(), Box<dyn Error>> {
    raise_open_files();
    let RunOptions {
        nats,
        credentials,
        ca,
        state: StateFolder { state },
        name,
        mesh,
        mesh_endpoint,
        mesh_port,
        vxlan_port,
        mesh_socket_dir,
        qemu,
        accel,
        image_cache_gib,
        vm_vcpus,
        vm_memory_mb,
        vm_disk_gib,
        dns_upstreams,
        metrics,
    } = options;
    let overrides = ConnectionOverrides { server: nats, credentials, ca, name };
    let (endpoint, name) = connection::resolve(&state, overrides)?;
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
    let machines = MachineOptions {
        qemu,
        accelerator: accel.configured(),
        image_budget: u64::from(image_cache_gib) << 30,
        fetch: FetchSettings::default(),
        // This program, even if its file was replaced.
        offer: Offer { vcpus: vm_vcpus, memory_mb: vm_memory_mb, disk_gib: vm_disk_gib },
        launcher: Launcher { program: "/proc/self/exe".into(), arguments: vec!["vm-launch".into()] },
    };
    let resolvers = dns_upstreams.into_iter().map(|upstream| upstream.0).collect();
    let config = AgentConfig { endpoint, state, name, mesh, machines, resolvers, metrics };
    let runtime = runtime()?;
    let ran = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            service_manager::stopping();
            tracing::info!("stopping; the devices of this node stay");
        };
        Ok(agent::run(config, stop).await?)
    });
    // A step that was started is completed by the kernel.
    runtime.shutdown_background();
    ran
}

//! The program `otherix-agent`: reads its command line, and runs the agent until it is told to stop.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use otherix_agent::agent::{self, Config};
use otherix_schemas::value::NodeName;
use otherix_transport::{Credentials, Endpoint};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The otherix node agent: makes this machine's links what the cluster's networks ask for.
#[derive(Parser)]
#[command(name = "otherix-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this node, until SIGTERM or SIGINT
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Where NATS is, for example nats://10.0.0.1:4222
    #[arg(long, value_name = "URL", env = "OTHERIX_NATS_URL")]
    nats: String,
    /// The node's credentials
    #[arg(long, value_name = "FILE", env = "OTHERIX_CREDENTIALS")]
    credentials: PathBuf,
    /// The folder that keeps the node's identity; made at the first start
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The node's name in the cluster
    #[arg(long, value_name = "NODE_NAME")]
    name: NodeName,
}

fn main() -> ExitCode {
    let Cli { command: Command::Run(options) } = Cli::parse();
    let filter = EnvFilter::try_from_env("OTHERIX_LOG").unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            tracing::error!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Run) -> Result<(), Box<dyn Error>> {
    let Run { nats, credentials, state, name } = options;
    let credentials = Credentials::load(&credentials)?;
    let config = Config { endpoint: Endpoint { url: nats, credentials }, state, name };
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

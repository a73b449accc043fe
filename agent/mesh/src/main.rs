//! The program `otherix-mesh`, which runs one mesh device.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use otherix_mesh::args::MeshArgs;
use tracing_subscriber::EnvFilter;

/// The otherix mesh device: userspace WireGuard. Runs until SIGTERM or SIGINT; the TUN device remains.
///
/// The agent or `wg` configures it over a local socket, in WireGuard's userspace protocol; it runs without them. The
/// private key may also be in `mesh.key` of the state folder, in base64, readable by its owner only. `OTHERIX_LOG` sets
/// what is logged to stderr: error, warn, info (the default) or debug.
#[derive(Parser)]
#[command(name = "otherix-mesh", version)]
struct MeshCli {
    #[command(flatten)]
    mesh: MeshArgs,
}

fn main() -> ExitCode {
    let MeshCli { mesh } = MeshCli::parse();
    let filter = EnvFilter::try_from_env("OTHERIX_LOG").unwrap_or_else(|_| EnvFilter::new("info,boringtun=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    match mesh.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            tracing::error!("{text}");
            ExitCode::FAILURE
        }
    }
}

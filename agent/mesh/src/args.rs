//! The command line of `otherix-mesh` and `otherix-agent mesh`.

use std::path::PathBuf;

use clap::Args;

use crate::{MeshOptions, MeshRunError, Offload, run, signals};

/// The options of a mesh device.
#[derive(Args)]
pub struct MeshArgs {
    /// The TUN device; created if it does not exist
    #[arg(long, value_name = "DEVICE", default_value = "otwg0")]
    name: String,
    /// The folder of the local socket; `wg` looks in the default one
    #[arg(long, value_name = "DIR", default_value = "/var/run/wireguard")]
    socket_dir: PathBuf,
    /// The folder that may contain the private key
    #[arg(long, value_name = "DIR", alias = "state-dir")]
    state: Option<PathBuf>,
    /// The UDP port to listen on; 0 for any free port
    #[arg(long, default_value_t = 51820)]
    port: u16,
    /// The MTU that the TUN device is created with: that of the underlay less 60
    #[arg(long, default_value_t = 1440, value_parser = clap::value_parser!(u16).range(68..))]
    mtu: u16,
    /// The alias that the TUN device is created with; an existing device without it is refused
    #[arg(long)]
    alias: Option<String>,
    /// Create a new session, which does not end with that of the terminal or the service
    #[arg(long)]
    detach: bool,
    /// The highest offload level to enable
    #[arg(long, value_enum, default_value = "tunnel", hide = true)]
    offload: Offload,
}

impl MeshArgs {
    /// Runs the device in this thread until SIGTERM or SIGINT. The TUN device remains.
    ///
    /// # Errors
    /// [`MeshRunError`].
    pub fn run(self) -> Result<(), MeshRunError> {
        let Self { name, socket_dir, state, port, mtu, alias, detach, offload } = self;
        if detach {
            rustix::process::setsid().map_err(|error| MeshRunError::Detach(error.into()))?;
        }
        let stop = signals::termination().map_err(MeshRunError::Signals)?;
        let options = MeshOptions { name, socket_folder: socket_dir, state, port, mtu, offload, alias };
        run(&options, stop)?;
        tracing::info!("stopped; the TUN device remains");
        Ok(())
    }
}

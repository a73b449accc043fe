//! The command line of `otherixd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use otherix_commands::config::ClusterConfig;
use otherix_schemas::value::{Ipv4Subnet, Mtu, Vni, VniRange};

/// The control plane of otherix: decides, remembers, and answers.
#[derive(Debug, Parser)]
#[command(name = "otherixd", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the control plane with its own nats-server, until SIGTERM or SIGINT.
    ///
    /// The first start makes the state folder, the cluster's id and the credentials of its users
    /// (`credentials/admin.json` for people, `credentials/node.json` for nodes).
    #[command(after_help = "Example:\n  otherixd run --state /var/lib/otherix --listen 192.0.2.1:4222")]
    Run(RunArgs),
    /// Look at the journal.
    Journal {
        /// What to do with it.
        #[command(subcommand)]
        command: JournalCommand,
    },
}

/// What to do with the journal.
#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Read every event and check the chain of digests; the control plane must be stopped.
    Verify(State),
}

/// Where everything is kept.
#[derive(Debug, clap::Args)]
pub(crate) struct State {
    /// The folder that holds the journal, the read models, the credentials and NATS's files.
    #[arg(long = "state", value_name = "DIR", env = "OTHERIX_STATE", default_value = "/var/lib/otherix")]
    pub(crate) folder: PathBuf,
}

impl State {
    /// The journal's file.
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.join("journal.db")
    }

    /// The read models' file.
    pub(crate) fn read_models(&self) -> PathBuf {
        self.folder.join("read-models.db")
    }
}

/// How to run.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) state: State,
    /// Where NATS listens for the cluster; port 0 takes one that is free.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4222")]
    pub(crate) listen: SocketAddr,
    /// The nats-server (2.11 or newer) to run, instead of the one on PATH.
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_server: Option<PathBuf>,
    /// The supernet of the mesh: no NAT subnet may lie in it.
    #[arg(long, value_name = "CIDR", default_value_t = Ipv4Subnet::DEFAULT_MESH)]
    pub(crate) mesh_supernet: Ipv4Subnet,
    /// The VNIs that overlays get, both ends included (1 to 16777215).
    #[arg(long, value_name = "FIRST-LAST", default_value = "1000-16777215", value_parser = vni_range)]
    pub(crate) vni_range: VniRange,
    /// The MTU of the network between the nodes, in bytes; overlays get 110 less.
    #[arg(long, value_name = "BYTES", default_value = "1500", value_parser = mtu)]
    pub(crate) underlay_mtu: Mtu,
}

impl RunArgs {
    /// What decisions depend on.
    pub(crate) fn config(&self) -> ClusterConfig {
        ClusterConfig { mesh: self.mesh_supernet, vnis: self.vni_range, underlay_mtu: self.underlay_mtu }
    }
}

fn vni_range(text: &str) -> Result<VniRange, String> {
    let vni = |text: &str| -> Result<Vni, String> {
        let number = text.parse::<u32>().map_err(|_| format!("`{text}` is no VNI"))?;
        Vni::try_from(number).map_err(|error| error.to_string())
    };
    let (first, last) = text.split_once('-').ok_or("must be two VNIs, such as `1000-2000`")?;
    VniRange::new(vni(first)?, vni(last)?).map_err(|error| error.to_string())
}

fn mtu(text: &str) -> Result<Mtu, String> {
    let number = text.parse::<i64>().map_err(|_| "must be a number of bytes")?;
    let mtu = Mtu::try_from(number).map_err(|error| error.to_string())?;
    mtu.of_overlay().map_err(|_| "leaves too little for an overlay, which needs 110 bytes more than 68".to_owned())?;
    Ok(mtu)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        assert!(vni_range("5-4").is_err() && vni_range("0-4").is_err() && vni_range("4").is_err());
        assert_eq!(vni_range("1000-16777215"), Ok(VniRange::DEFAULT));
        assert!(mtu("177").is_err() && mtu("178").is_ok());
    }
}

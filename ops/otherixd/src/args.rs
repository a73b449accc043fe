//! The command line of `otherixd`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use clap::{Parser, Subcommand};
use otherix_commands::config::ClusterConfig;
use otherix_commands::service::Settings;
use otherix_schemas::node::UNREACHABLE_AFTER;
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
    /// Make the read models anew from the journal; the control plane must be stopped.
    Rebuild(State),
    /// Begin a new epoch behind a journal that was restored from an older backup.
    ///
    /// The stream has events that the backup lacks, or is lost too. `otherixd journal adopt` takes them over, and is the better
    /// way; this gives them up, for good. The new epoch begins at a position, and gives VNIs and addresses of the mesh, above all that were ever given,
    /// so that nobody can take an event of it for one of those. Nodes that see it hold back their deletions. The events given
    /// up are kept in a file of the state folder, the read models and the stream are made anew at the next start of
    /// `otherixd run`, and durable consumers go on behind the gap.
    ///
    /// The control plane must be stopped. May be interrupted at any time, and given again: begun is begun once.
    #[command(after_help = "Examples:\n  otherixd restore --new-epoch --dry-run\n  \
        otherixd restore --new-epoch --above 250000    # the stream is lost too")]
    Restore(RestoreArgs),
    /// Check the journal, or complete it from the stream.
    Journal {
        /// What to do with it.
        #[command(subcommand)]
        command: JournalCommand,
    },
}

/// What to do with the journal.
#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Read every event and check the chain of digests, the columns and the database's file. The control plane may run.
    ///
    /// With --nats and --credentials (those of `admin`) the clients' stream of a running control plane is compared as well,
    /// byte for byte; with --stream the streams of one that is stopped. A journal that lost its last events shows only there.
    /// Answers that are remembered under idempotency keys (table `handled`, 24 hours) are not part of the chain; of them only
    /// those are found that rest on an event which there is not.
    Verify(VerifyArgs),
    /// Take over the events that the stream has and the journal lacks, byte for byte.
    ///
    /// That is so after the journal was restored from an older backup, or was lost. Each event is checked: position, cluster,
    /// epoch, number in its aggregate, decision before it. Nothing is taken over if stream and journal differ anywhere in what
    /// both have. The control plane must be stopped. May be interrupted at any time, and given again.
    #[command(after_help = "Example:\n  otherixd journal adopt --state /var/lib/otherix --dry-run")]
    Adopt(AdoptArgs),
}

/// A control plane that is stopped.
#[derive(Debug, clap::Args)]
pub(crate) struct AtRestArgs {
    #[command(flatten)]
    pub(crate) state: State,
    /// The nats-server (2.11 or newer) to read the stream with, instead of the one on PATH.
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_server: Option<PathBuf>,
}

/// How to verify.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) at_rest: AtRestArgs,
    /// Compare the stream and the clients' mirror as well; the control plane must be stopped.
    #[arg(long)]
    pub(crate) stream: bool,
    /// Compare the clients' stream of a running control plane as well.
    #[arg(long, value_name = "URL", requires = "credentials", conflicts_with = "stream")]
    pub(crate) nats: Option<String>,
    /// The credentials file for --nats.
    #[arg(long, value_name = "FILE", requires = "nats")]
    pub(crate) credentials: Option<PathBuf>,
}

/// How to take over.
#[derive(Debug, clap::Args)]
pub(crate) struct AdoptArgs {
    #[command(flatten)]
    pub(crate) at_rest: AtRestArgs,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How to restore.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) at_rest: AtRestArgs,
    /// Begin a new epoch: required, so that nothing is given up by accident.
    #[arg(long, required = true)]
    pub(crate) new_epoch: bool,
    /// A position that was certainly not exceeded; needed if the stream is lost too. Without it, 1000 above the last one seen.
    #[arg(long, value_name = "POSITION")]
    pub(crate) above: Option<u64>,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Where everything is kept.
#[derive(Clone, Debug, clap::Args)]
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

    /// The folder of what the relay must remember.
    pub(crate) fn relay(&self) -> PathBuf {
        self.folder.join("relay")
    }

    /// The read models' file.
    pub(crate) fn read_models(&self) -> PathBuf {
        self.folder.join("read-models.db")
    }

    /// Removes the read models: they are made again from the events.
    pub(crate) fn remove_read_models(&self) -> io::Result<()> {
        for name in ["read-models.db", "read-models.db-wal", "read-models.db-shm"] {
            match fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
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
    /// The supernet of the mesh: each node gets an address of it, none twice; no NAT subnet may lie in it.
    #[arg(long, value_name = "CIDR", default_value_t = Ipv4Subnet::DEFAULT_MESH)]
    pub(crate) mesh_supernet: Ipv4Subnet,
    /// The VNIs that overlays get, both ends included (1 to 16777215).
    #[arg(long, value_name = "FIRST-LAST", default_value = "1000-16777215", value_parser = vni_range)]
    pub(crate) vni_range: VniRange,
    /// The MTU of the network between the nodes, in bytes; overlays get 110 less.
    #[arg(long, value_name = "BYTES", default_value = "1500", value_parser = mtu)]
    pub(crate) underlay_mtu: Mtu,
    /// How long a node may be silent before it counts as unreachable, in ms; nodes speak every 5 s. For tests.
    #[arg(long, value_name = "MS", hide = true, default_value_t = UNREACHABLE_AFTER_MS,
        value_parser = clap::value_parser!(u64).range(300..))]
    pub(crate) unreachable_after_ms: u64,
}

/// What [`UNREACHABLE_AFTER`] is in milliseconds.
const UNREACHABLE_AFTER_MS: u64 = UNREACHABLE_AFTER.as_secs() * 1000;

impl RunArgs {
    /// How requests and signs of life are judged.
    pub(crate) fn service(&self) -> Settings {
        Settings { mesh: self.mesh_supernet, unreachable_after: Duration::from_millis(self.unreachable_after_ms) }
    }

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

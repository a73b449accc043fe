//! The command line of `otherixd`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use clap::{Parser, Subcommand};
use otherix_commands::config::ClusterConfig;
use otherix_commands::relay::{StreamLimits, StreamSettings};
use otherix_commands::service::Settings;
use otherix_commands::tlog::CHECKPOINT_INTERVAL;
use otherix_observe::endpoint::MetricsArgs;
use otherix_observe::logs::LogArgs;
use otherix_schemas::node::UNREACHABLE_AFTER;
use otherix_schemas::value::{Ipv4Subnet, Mtu, SubnetError, Vni, VniRange};

use crate::nats::{GivenCertificate, TlsSettings, parse_name};
use crate::own_nats_args::{AccountsCommand, OwnNatsArgs, OwnServers};

/// The control plane of otherix: command and query services, event store, read models and NATS.
#[derive(Debug, Parser)]
#[command(name = "otherixd", version, arg_required_else_help = true)]
pub(crate) struct OtherixdArgs {
    #[command(subcommand)]
    pub(crate) command: OtherixdCommand,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OtherixdCommand {
    /// Run the control plane with its own nats-server, or on an existing NATS (--nats), until SIGTERM or SIGINT.
    ///
    /// The first start creates the state folder, the cluster's id and the credentials of the first administrator
    /// (`credentials/admin.creds`). Nodes join with tokens: `otherix node join-token create`.
    #[command(after_help = "Examples:\n  otherixd run --state /var/lib/otherix --listen 192.0.2.1:4222\n  \
        otherixd run --nats tls://n1.example:4222,tls://n2.example:4222,tls://n3.example:4222 \\\n    \
        --nats-ca ca.pem --nats-replicas 3    # after `otherixd accounts push`")]
    Run(Box<RunArgs>),
    /// Rebuild the read models from the journal; the control plane must be stopped.
    Rebuild(StateFolder),
    /// Write a backup to a file; the control plane may be running.
    ///
    /// The file has everything that cannot be made again: the journal, the transparency log, the keys (`identity`) and
    /// the credentials of the first administrator (`credentials`), all as of one moment. It is verified before it gets
    /// its name: digest chain, columns and decisions of the journal, its tree against the log's tiles and signed
    /// checkpoints, and the file as read back from the disk. It has mode 0600, because it contains all keys of the
    /// cluster: keep it like them.
    ///
    /// While it is written, there is a folder FILE.part beside it, and twice the size of the journal and the log is
    /// needed. If it is interrupted at any moment, there is no FILE; the folder remains, with copies of keys, until the
    /// next backup with the same FILE or --into the same folder.
    #[command(after_help = "Examples:\n  otherixd backup before-upgrade.tar\n  \
        otherixd backup --into /backup    # regularly, see ops/systemd\n  \
        otherixd restore --from before-upgrade.tar --dry-run    # verify it")]
    Backup(BackupArgs),
    /// Restore a backup into an empty state folder, or begin a new epoch over a restored journal.
    ///
    /// With --from, a file of `otherixd backup` becomes the state folder, which must be empty or absent. All of it is
    /// verified first, and there is nothing in the folder's place until all of it is. Which command is next is printed.
    ///
    /// With --new-epoch, a new epoch begins after the journal's head: the stream has events that the backup lacks, or
    /// is itself lost. If the stream still has them, prefer `otherixd journal adopt`, which recovers them: this command
    /// gives them up permanently. The new epoch starts at a position above all that were ever assigned, and so do its
    /// VNIs and mesh addresses, so that none is reused. Nodes that receive it hold back deletions until they are
    /// released. The events given up are written to a file in the state folder, with the checkpoint of the log that was
    /// signed for the kept events and them, if it is known; a checkpoint that was signed for others stops the command.
    /// The read models and the stream are rebuilt at the next start of `otherixd run`, and durable consumers continue
    /// after the gap.
    ///
    /// The control plane must be stopped. May be interrupted and repeated at any time: the epoch begins only once.
    #[command(after_help = "Examples:\n  otherixd restore --from /backup/otherix-2026-11-30.tar\n  \
        otherixd restore --new-epoch --dry-run\n  \
        otherixd restore --new-epoch --above 250000    # if the stream is also lost")]
    Restore(RestoreArgs),
    /// Replace the key that signs the decisions; the control plane must be stopped.
    ///
    /// Nodes apply only decisions signed with the key they received when they joined, or with one reached from it by
    /// rotations. The old key signs the new one, which nodes receive with their next heartbeat.
    RotateDecisionKey(StateFolder),
    /// The accounts of otherix for a NATS that otherixd does not start (`otherixd run --nats`).
    Accounts {
        #[command(subcommand)]
        command: AccountsCommand,
    },
    /// Check the journal, or complete it from the stream.
    Journal {
        #[command(subcommand)]
        command: JournalCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Verify every event: digest chain, columns and database file. The control plane may be running.
    ///
    /// With --nats and --credentials (those of `admin`), also compares the clients' stream of a running control plane,
    /// byte for byte; with --stream, the streams of a stopped one. Only this comparison detects that the journal has
    /// lost its last events. Idempotency records (kept 24 hours) are not part of the digest chain; they are checked
    /// only for references to missing events.
    Verify(VerifyArgs),
    /// Append the events that the stream has and the journal lacks, byte for byte.
    ///
    /// Needed after the journal was lost or restored from an older backup. Each event is validated: position, cluster,
    /// epoch, stream version, previous decision. Nothing is appended if stream and journal differ in any event that
    /// both have. The control plane must be stopped. May be interrupted and repeated at any time.
    #[command(after_help = "Example:\n  otherixd journal adopt --state /var/lib/otherix --dry-run")]
    Adopt(AdoptArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct OfflineArgs {
    #[command(flatten)]
    pub(crate) state: StateFolder,
    /// The nats-server (2.11 or newer) to read the stream with; the one on PATH when absent. Not used with --nats.
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_server: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) own: OwnServers,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) offline: OfflineArgs,
    /// Also compare the stream and the clients' mirror; the control plane must be stopped.
    #[arg(long)]
    pub(crate) stream: bool,
    /// Compare the clients' stream of a running control plane: credentials of `admin` for the server of --nats.
    #[arg(long, value_name = "FILE", requires = "nats", conflicts_with = "stream")]
    pub(crate) credentials: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AdoptArgs {
    #[command(flatten)]
    pub(crate) offline: OfflineArgs,
    /// Print what would be done, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// The file to write. Its folder must exist, and have the space.
    #[arg(value_name = "FILE", required_unless_present = "into")]
    pub(crate) file: Option<PathBuf>,
    /// Write the backup to a folder, under a name like `otherix-20261130T094524Z.tar`, and delete older ones there: all
    /// of the last 48 hours are kept, and the last one of each day (UTC) before, as --keep-days says. The newest one is
    /// never deleted, nor are files with other names.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["file", "force"])]
    pub(crate) into: Option<PathBuf>,
    /// With --into: for how many days backups are kept.
    #[arg(long, value_name = "DAYS", default_value_t = 14, requires = "into")]
    pub(crate) keep_days: u32,
    #[command(flatten)]
    pub(crate) state: StateFolder,
    /// Replace FILE, if there is one, once the new backup is complete and verified.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["from", "new_epoch"])))]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) offline: OfflineArgs,
    /// Restore this file of `otherixd backup` into the state folder, which must be empty or absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Begin a new epoch over the journal in the state folder: gives events up for good.
    #[arg(long)]
    pub(crate) new_epoch: bool,
    /// A position that was certainly never exceeded; required if the stream is also lost. Defaults to 1000 above the
    /// last one found.
    #[arg(long, value_name = "POSITION", conflicts_with = "from")]
    pub(crate) above: Option<u64>,
    /// Begin the new epoch although a checkpoint of the log was signed for other events than those kept and given up:
    /// somebody has changed the journal or the stream.
    #[arg(long, conflicts_with = "from")]
    pub(crate) unproven: bool,
    /// Change nothing. With --new-epoch, print what would be done; with --from, verify the backup, for which it is
    /// unpacked to the folder FILE.verifying beside it.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The state folder, unless another one is given.
pub(crate) const STATE_FOLDER: &str = "/var/lib/otherix";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StateFolder {
    /// State folder: journal, read models, credentials and the files of NATS.
    #[arg(long = "state", value_name = "DIR", env = "OTHERIX_STATE", default_value = STATE_FOLDER)]
    pub(crate) folder: PathBuf,
}

impl StateFolder {
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.join("journal.db")
    }

    /// The folder of the relay's notes, see `otherix_commands::relay::Notes`.
    pub(crate) fn relay(&self) -> PathBuf {
        self.folder.join("relay")
    }

    /// The folder of the keys.
    pub(crate) fn identity(&self) -> PathBuf {
        self.folder.join("identity")
    }

    /// The key that signs the decisions.
    pub(crate) fn decision_key(&self) -> PathBuf {
        self.identity().join("decision-key.json")
    }

    /// The key of the transparency log.
    pub(crate) fn log_key(&self) -> PathBuf {
        self.identity().join("log-key.json")
    }

    /// The database of the transparency log: tiles and checkpoints.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log.db")
    }

    /// The database of refused commands.
    pub(crate) fn refusals(&self) -> PathBuf {
        self.folder.join("refusals.db")
    }

    pub(crate) fn read_models(&self) -> PathBuf {
        self.folder.join("read-models.db")
    }

    pub(crate) fn history(&self) -> PathBuf {
        self.folder.join("history.db")
    }

    /// Deletes the read models; they are rebuilt from the events.
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

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) state: StateFolder,
    /// Address where NATS listens for clients and nodes; port 0 chooses a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4222", conflicts_with = "nats")]
    pub(crate) listen: SocketAddr,
    /// The nats-server (2.11 or newer) to run; the one on PATH when absent.
    #[arg(long, value_name = "FILE", conflicts_with = "nats")]
    pub(crate) nats_server: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) own: OwnNatsArgs,
    /// Supernet of the mesh: each node gets an address in it, which is never reused; NAT subnets must not overlap it.
    #[arg(long, value_name = "CIDR", default_value_t = Ipv4Subnet::DEFAULT_MESH, value_parser = mesh_supernet)]
    pub(crate) mesh_supernet: Ipv4Subnet,
    /// Range of the overlays' VNIs, both ends included (1 to 16777215).
    #[arg(long, value_name = "FIRST-LAST", default_value = "1000-16777215", value_parser = vni_range)]
    pub(crate) vni_range: VniRange,
    /// MTU of the underlay between the nodes, in bytes; the MTU of overlays is 110 less.
    #[arg(long, value_name = "BYTES", default_value = "1500", value_parser = mtu)]
    pub(crate) underlay_mtu: Mtu,
    /// How long events stay on the stream and its mirror, such as 30d, 12h or 10m; for ever when absent. The journal
    /// keeps all: those that the stream no longer has are read by the request `event.list`.
    #[arg(long, value_name = "DURATION", value_parser = max_age)]
    pub(crate) stream_max_age: Option<Duration>,
    /// Size of the stream, and of its mirror, in bytes (at least 65536), above which the oldest events are deleted
    /// there; no limit when absent. NATS refuses more than it has storage for.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(65536..=MAX_BYTES))]
    pub(crate) stream_max_bytes: Option<u64>,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
    /// Time without a heartbeat after which a node is unreachable, in ms; heartbeats are sent every 5 s. For tests.
    #[arg(long, value_name = "MS", hide = true, default_value_t = UNREACHABLE_AFTER_MS,
        value_parser = clap::value_parser!(u64).range(300..))]
    pub(crate) unreachable_after_ms: u64,
    /// Time between two checkpoints of the transparency log, in ms. For benches, where what checkpoints cost is the
    /// difference from an hour, and for tests, which kill it while it stores one.
    #[arg(long, value_name = "MS", hide = true, default_value_t = CHECKPOINT_INTERVAL_MS,
        value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) checkpoint_interval_ms: u64,
}

/// TLS is required unless --listen is a loopback address and none of these is given.
#[derive(Debug, clap::Args)]
pub(crate) struct TlsArgs {
    /// Certificate of the NATS server in PEM format, with its intermediate certificates.
    ///
    /// When absent, the first start generates a CA (`identity/tls/ca.pem` in the state folder, which clients and nodes
    /// need), and every start renews a certificate that expires within a year or lacks a name.
    #[arg(long, value_name = "FILE", requires = "tls_key", conflicts_with = "nats")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert in PEM format; other users must not have access to it.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Certificate of the CA that has issued --tls-cert; one that this machine trusts when absent.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Name or address at which clients reach NATS, beside --listen and the name of this machine; may be repeated.
    #[arg(long = "tls-name", value_name = "NAME", value_parser = parse_name, conflicts_with = "nats")]
    pub(crate) tls_names: Vec<String>,
}

impl TlsArgs {
    /// What they say about the certificate.
    pub(crate) fn settings(&self) -> TlsSettings {
        let Self { tls_cert, tls_key, tls_ca, tls_names } = self;
        let given = tls_cert.clone().zip(tls_key.clone());
        let given = given.map(|(cert, key)| GivenCertificate { cert, key, ca: tls_ca.clone() });
        TlsSettings { given, names: tls_names.clone() }
    }
}

/// NATS counts bytes in 63 bits.
const MAX_BYTES: u64 = i64::MAX.unsigned_abs();

/// [`UNREACHABLE_AFTER`] in milliseconds.
const UNREACHABLE_AFTER_MS: u64 = UNREACHABLE_AFTER.as_secs() * 1000;

/// [`CHECKPOINT_INTERVAL`] in milliseconds.
const CHECKPOINT_INTERVAL_MS: u64 = CHECKPOINT_INTERVAL.as_secs() * 1000;

impl RunArgs {
    /// Settings of the command service.
    pub(crate) fn service(&self) -> Settings {
        Settings { mesh: self.mesh_supernet, unreachable_after: Duration::from_millis(self.unreachable_after_ms) }
    }

    /// How many servers keep the stream, and how much of it.
    pub(crate) fn stream(&self, replicas: Option<usize>) -> StreamSettings {
        let max_age = self.stream_max_age.unwrap_or_default();
        StreamSettings { replicas, limits: StreamLimits { max_age, max_bytes: self.stream_max_bytes } }
    }

    /// Settings that decisions depend on.
    pub(crate) fn config(&self) -> ClusterConfig {
        ClusterConfig { mesh: self.mesh_supernet, vnis: self.vni_range, underlay_mtu: self.underlay_mtu }
    }
}

fn vni_range(text: &str) -> Result<VniRange, String> {
    let vni = |text: &str| -> Result<Vni, String> {
        let number = text.parse::<u32>().map_err(|_| format!("`{text}` is not a VNI"))?;
        Vni::try_from(number).map_err(|error| error.to_string())
    };
    let (first, last) = text.split_once('-').ok_or("must be two VNIs, such as `1000-2000`")?;
    VniRange::new(vni(first)?, vni(last)?).map_err(|error| error.to_string())
}

/// Parses an age: at least two seconds, as the server remembers the ids of messages for one.
fn max_age(text: &str) -> Result<Duration, String> {
    let rule = "must be a number with a unit (s, m, h, d), such as `30d`, and at least 2s";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(rule)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(rule.to_owned()),
    };
    let number = number.parse::<u32>().map_err(|_| rule)?;
    let age = Duration::from_secs(u64::from(number) * seconds);
    // The server counts nanoseconds in 63 bits.
    let is_in_range = (2..=100 * 365 * 86_400).contains(&age.as_secs());
    if is_in_range { Ok(age) } else { Err(rule.to_owned()) }
}

fn mesh_supernet(text: &str) -> Result<Ipv4Subnet, String> {
    let subnet: Ipv4Subnet = text.parse().map_err(|error: SubnetError| error.to_string())?;
    subnet.check_usable().map_err(|error| error.to_string())?;
    Ok(subnet)
}

fn mtu(text: &str) -> Result<Mtu, String> {
    let number = text.parse::<i64>().map_err(|_| "must be a number of bytes")?;
    let mtu = Mtu::try_from(number).map_err(|error| error.to_string())?;
    mtu.of_overlay().map_err(|_| "too small for overlays, which need at least 178 bytes".to_owned())?;
    Ok(mtu)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        OtherixdArgs::command().debug_assert();
        assert!(vni_range("5-4").is_err() && vni_range("0-4").is_err() && vni_range("4").is_err());
        assert_eq!(vni_range("1000-16777215"), Ok(VniRange::DEFAULT));
        for bad in ["", "d", "1s", "30", "30 d", "-1d", "1.5d", "1w", "40000d", "ü"] {
            assert!(max_age(bad).is_err(), "{bad}");
        }
        assert_eq!(max_age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert!(mtu("177").is_err() && mtu("178").is_ok());
        let limit = |bytes: u64| {
            let bytes = bytes.to_string();
            let args = OtherixdArgs::try_parse_from(["otherixd", "run", "--stream-max-bytes", &bytes]).ok()?;
            let OtherixdCommand::Run(run) = args.command else { return None };
            run.stream(None).limits.max_bytes
        };
        for (bytes, accepted) in [(65_535, None), (65_536, Some(65_536)), (MAX_BYTES, Some(MAX_BYTES))] {
            assert_eq!(limit(bytes), accepted, "{bytes}");
        }
        assert_eq!(limit(MAX_BYTES + 1), None);
    }
}

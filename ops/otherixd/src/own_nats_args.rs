//! The command line about a NATS that otherixd does not start.

use std::path::PathBuf;

use clap::Subcommand;

use crate::args::StateFolder;
use crate::nats::{NatsError, OwnNatsSettings, ServerUrls};

/// The servers of an existing NATS.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OwnServers {
    /// An existing NATS with JetStream: the URLs of its servers, separated by commas.
    ///
    /// TLS is required, unless all of them are loopback addresses.
    #[arg(long, value_name = "URL[,URL...]")]
    pub(crate) nats: Option<ServerUrls>,
    /// Certificate of the CA that has issued those of the servers of --nats; one that this machine trusts when absent.
    #[arg(long, value_name = "FILE", requires = "nats", alias = "ca")]
    pub(crate) nats_ca: Option<PathBuf>,
}

impl OwnServers {
    /// The settings of connections to these servers; `None` if NATS is embedded.
    ///
    /// # Errors
    /// If the CA cannot be used.
    pub(crate) fn settings(&self, state: &StateFolder) -> Result<Option<OwnNatsSettings>, NatsError> {
        let Some(urls) = &self.nats else { return Ok(None) };
        OwnNatsSettings::new(&state.folder, urls, self.nats_ca.as_deref()).map(Some)
    }
}

/// An existing NATS for a control plane.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OwnNatsArgs {
    #[command(flatten)]
    pub(crate) servers: OwnServers,
    #[command(flatten)]
    pub(crate) keys: OwnKeys,
    /// Replicas of the stream and of the clients' mirror, on the servers of --nats: 3 for a cluster of three or more.
    /// When absent, new ones have one, and existing ones stay as they are.
    #[arg(long, value_name = "NUMBER", requires = "nats", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) nats_replicas: Option<u8>,
}

impl OwnNatsArgs {
    /// The settings; `None` if NATS is embedded.
    ///
    /// # Errors
    /// If a key or certificate cannot be used.
    pub(crate) fn settings(&self, state: &StateFolder) -> Result<Option<OwnNatsSettings>, NatsError> {
        let Some(settings) = self.servers.settings(state)? else { return Ok(None) };
        let OwnKeys { nats_operator_key, nats_system_creds } = &self.keys;
        let settings = settings.with_replicas(self.nats_replicas.map(usize::from));
        settings.with_keys(nats_operator_key.as_deref(), nats_system_creds.as_deref()).map(Some)
    }
}

/// What the operator of an existing NATS may entrust to otherixd.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OwnKeys {
    /// Signing key of the operator of the existing NATS (its seed, mode 0600): otherixd signs its accounts and pushes
    /// them. It can sign any other account, too.
    #[arg(long, value_name = "FILE", requires = "nats", requires = "nats_system_creds")]
    pub(crate) nats_operator_key: Option<PathBuf>,
    /// Credentials file of a user of the system account. Without --nats-operator-key, only clients that NATS does not
    /// authenticate are counted with it.
    #[arg(long, value_name = "FILE", requires = "nats")]
    pub(crate) nats_system_creds: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// Print the JWTs of the accounts, as lines of `resolver_preload` in the configuration of nats-server.
    ///
    /// The first time, it makes the keys of the accounts in the state folder, as the first start does. Without
    /// --nats-operator-key, each JWT is signed with the account's own key: `nsc import account` signs it again. The
    /// JWTs contain what is revoked by now. They are no secret. The control plane may be running.
    #[command(after_help = "Examples:\n  otherixd accounts print --out accounts    # for `nsc import account`\n  \
        otherixd accounts print --nats-operator-key operator.nk >> accounts.conf")]
    Print(PrintAccountsArgs),
    /// Sign the accounts and push them to all servers of an existing NATS.
    ///
    /// Accounts that the servers have already are not pushed again. Revocations that only the servers have are kept.
    /// Limits that were set for these accounts by other means are replaced. May be interrupted and repeated at any
    /// time; the control plane may be running.
    #[command(after_help = "Example:\n  otherixd accounts push --nats tls://n1.example:4222 --nats-ca ca.pem \\\n    \
        --nats-operator-key operator.nk --nats-system-creds sys.creds")]
    Push(PushAccountsArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct PrintAccountsArgs {
    #[command(flatten)]
    pub(crate) state: StateFolder,
    /// Signing key of the operator of the existing NATS (its seed, mode 0600).
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_operator_key: Option<PathBuf>,
    /// Write a file for each account, such as `OTHERIX-CONTROL.jwt`, into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PushAccountsArgs {
    #[command(flatten)]
    pub(crate) state: StateFolder,
    /// The URLs of its servers, separated by commas.
    #[arg(long, value_name = "URL[,URL...]")]
    pub(crate) nats: ServerUrls,
    /// Certificate of the CA that has issued those of the servers; those that this machine trusts when absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_ca: Option<PathBuf>,
    /// Signing key of the operator of the existing NATS (its seed, mode 0600).
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_operator_key: PathBuf,
    /// Credentials file of a user of the system account.
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_system_creds: PathBuf,
    /// Print what would be pushed, and push nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

//! Guards the node's contact with the control plane: what must not be taken away now, and the networks that were
//! withdrawn from this node because they did.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use otherix_schemas::id::NetworkId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::needs::ipv4;
use crate::model::desired::{Desired, Want};
use crate::model::need::{Contact, Need, Needs};
use crate::model::withdrawal::Withdrawals;
use crate::withdrawn::{WithdrawnNetwork, WithdrawnNetworks};

/// How long a connection may be missing before a network that is in the way of another server is withdrawn. A restart
/// of the control plane takes less.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// How often the released networks are read while there are withdrawn networks.
const RELEASE_POLL: Duration = Duration::from_secs(1);

pub(super) struct ContactGuard {
    folder: PathBuf,
    /// The server that has accepted the connection.
    peer: watch::Receiver<Option<SocketAddr>>,
    /// When the connection, which is missing, is considered lost.
    lost_at: Option<Instant>,
    is_lost: bool,
    withdrawn: WithdrawnNetworks,
    check_at: Option<Instant>,
}

impl ContactGuard {
    pub(super) fn new(folder: &Path) -> Self {
        let withdrawn = WithdrawnNetworks::read_or_log(folder);
        let now = Instant::now();
        let check_at = (!withdrawn.networks.is_empty()).then_some(now);
        let (folder, peer) = (folder.to_owned(), watch::channel(None).1);
        Self { folder, peer, lost_at: Some(now + LOST_AFTER), is_lost: false, withdrawn, check_at }
    }

    /// Follows the connection.
    pub(super) fn follow(&mut self, peer: watch::Receiver<Option<SocketAddr>>) {
        self.peer = peer;
    }

    /// Waits until the connection is lost or established.
    pub(super) async fn changed(&mut self) {
        if self.peer.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let is_connected = self.peer.borrow_and_update().is_some();
        self.lost_at = (!is_connected).then(|| Instant::now() + LOST_AFTER);
        self.is_lost = false;
    }

    /// Returns when [`Self::on_time`] has something to do.
    pub(super) fn check_at(&self) -> Option<Instant> {
        [self.check_at, self.lost_at].into_iter().flatten().min()
    }

    /// Returns whether a pass is due: networks were released, or the connection is lost now. `has_ledger` is for the
    /// log.
    pub(super) fn on_time(&mut self, now: Instant, has_ledger: bool) -> bool {
        let mut is_due = self.lost_at.take_if(|at| now >= *at).is_some();
        if is_due {
            if has_ledger {
                tracing::warn!(
                    "there is no connection to the control plane: the networks stay as they were decided last"
                );
            } else {
                tracing::error!(
                    "there is no connection to the control plane, and no ledger: this node does not know its networks, \
                    so it creates, repairs and removes nothing until it is connected"
                );
            }
            self.is_lost = true;
        }
        if self.check_at.take_if(|at| now >= *at).is_some() {
            for (id, WithdrawnNetwork { name, .. }) in self.withdrawn.take_released(&self.folder) {
                tracing::warn!(network = %id, %name, "released by an operator: the network is created again");
                is_due = true;
            }
            self.check_at = (!self.withdrawn.networks.is_empty()).then(|| now + RELEASE_POLL);
        }
        is_due
    }

    /// Returns the addresses whose loss must be undone at once. Adds the server of the connection to the needs.
    pub(super) fn vital(&self, needs: &mut Needs, is_unresolved: bool) -> BTreeSet<Ipv4Addr> {
        let contact = match *self.peer.borrow() {
            Some(server) => Contact::Up(ipv4(server.ip())),
            None if self.is_lost => Contact::Lost,
            None => Contact::Interrupted,
        };
        if let Contact::Up(Some(server)) = contact {
            Need::ControlPlane.add(needs, server);
        }
        contact.vital(needs, is_unresolved)
    }

    /// The networks that were withdrawn from this node.
    pub(super) fn withdrawals(&self) -> Withdrawals {
        self.withdrawn.withdrawals()
    }

    /// Remembers a network that is withdrawn, also across a restart.
    pub(super) fn withdraw(&mut self, id: NetworkId, network: WithdrawnNetwork) {
        tracing::error!(
            network = %id, name = network.name, reason = network.withdrawal.reason,
            hint = format!("otherix-agent release --state {} --network {id}", self.folder.display()),
            "the network is withdrawn from this node: with it, the control plane cannot be reached"
        );
        self.withdrawn.networks.insert(id, network);
        self.withdrawn.write_or_log(&self.folder);
        self.check_at.get_or_insert_with(|| Instant::now() + RELEASE_POLL);
    }

    /// Forgets the networks that were updated or are gone.
    pub(super) fn forget_updated(&mut self, desired: &Desired) {
        let before = self.withdrawn.networks.len();
        self.withdrawn.networks.retain(|id, network| {
            let current = desired.networks.get(id).filter(|network| network.want != Want::Nothing);
            current.is_some_and(|current| current.generation == network.withdrawal.generation)
        });
        if self.withdrawn.networks.len() != before {
            self.withdrawn.write_or_log(&self.folder);
        }
    }
}

//! A reconciliation pass of the mesh device. Blocking: it takes as long as the kernel and the device's process take.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use otherix_mesh::config::WgDeviceStatus;
use otherix_runtime::Runtime;
use otherix_schemas::error::Causes;
use otherix_schemas::node::MeshPeerStatus;
use tokio::time::Instant;

use super::configuration::{self, ConfiguredEndpoints};
use super::keys::MeshKeys;
use super::probe::PeerStates;
use super::server::{DeviceServer, ServerError};
use crate::kernel::{Kernel, KernelError};
use crate::model::link::Link;
use crate::model::mesh::{DesiredMeshDevice, MeshConflict, MeshLinkPlan};
use crate::model::mesh_device::{MESH, MESH_ALIAS};
use crate::model::need::Needs;

/// Most changes of the configuration in one pass. Two suffice, the key and the peers, unless other programs change it
/// too.
const CONFIG_CHANGES: usize = 4;

/// How often the device is read as a link if no change of it was notified.
const RESYNC: Duration = Duration::from_secs(60);

/// The inputs of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PassInputs {
    /// What the device must be. `None` if the node is not part of the mesh: the device stays as it is.
    pub desired: Option<Arc<DesiredMeshDevice>>,
    /// The mesh addresses of the nodes that packets of this node's guests may pass to.
    pub watched: Arc<BTreeSet<Ipv4Addr>>,
    /// The node has left the cluster: the device must be removed.
    pub has_left: bool,
    /// The cluster view is current, so that what no decision requires can be removed.
    pub is_current: bool,
    /// The device's index, if it is known to be ours.
    pub index: Option<u32>,
    /// The number of notifications about the device.
    pub changes: u64,
    /// The mesh addresses that this node must be able to reach for another reason.
    pub needed: Needs,
}

/// Why the device is not as required. The texts become statuses of overlays.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeviceError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("there is a device `{MESH}` that otherix did not create: remove or rename it")]
    Foreign,
    #[error("`{MESH}` was renamed to `{0}`, and another device has its name: rename that one")]
    NameConflict(String),
    /// Its status is not what was configured, even after [`CONFIG_CHANGES`].
    #[error("`{MESH}` does not keep its configuration")]
    NotConfigured,
    #[error("`{MESH}` is being created")]
    Creating,
    /// The mesh address of this node is in use on this node, as the text says.
    #[error("{0}")]
    Conflict(String),
}

/// The result of a successful pass.
#[derive(Clone, Debug, Default)]
pub(super) struct PassOutcome {
    pub(super) peers: Vec<MeshPeerStatus>,
    pub(super) states: PeerStates,
    /// Nodes that no route could be added to, with the error.
    pub(super) unrouted: BTreeMap<Ipv4Addr, String>,
}

pub(super) struct MeshReconciler {
    kernel: Kernel,
    keys: MeshKeys,
    server: DeviceServer,
    configured: ConfiguredEndpoints,
    /// Nodes that no route could be added to, with the error.
    unrouted: BTreeMap<Ipv4Addr, String>,
    /// The inputs for which the link was last read and found as required, and when.
    checked: Option<(PassInputs, Instant)>,
    /// The error that was last logged about storing a key.
    key_error: Option<String>,
    runtime: Arc<dyn Runtime>,
}

impl MeshReconciler {
    /// Manages the mesh device of this thread's network namespace.
    pub(super) fn new(keys: MeshKeys, server: DeviceServer, runtime: Arc<dyn Runtime>) -> Result<Self, KernelError> {
        Ok(Self {
            kernel: Kernel::open()?,
            keys,
            server,
            configured: ConfiguredEndpoints::new(),
            unrouted: BTreeMap::new(),
            checked: None,
            key_error: None,
            runtime,
        })
    }

    pub(super) const fn keys(&mut self) -> &mut MeshKeys {
        &mut self.keys
    }

    /// See [`DeviceServer::watch`].
    pub(super) fn watch(&self) -> Option<UnixStream> {
        self.server.watch()
    }

    /// Makes the device what the inputs require.
    ///
    /// `silent` are the peers that no packet passes to and back: those without a session are configured anew.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub(super) fn pass(
        &mut self,
        inputs: &PassInputs,
        silent: &BTreeSet<Ipv4Addr>,
    ) -> Result<PassOutcome, DeviceError> {
        let link = self.find_link(inputs.index)?;
        if inputs.has_left {
            return self.leave(link).map(|()| PassOutcome::default());
        }
        let Some(desired) = &inputs.desired else { return Ok(PassOutcome::default()) };
        if let Some(link) = link.as_ref().filter(|link| !self.server.accepts(link)) {
            tracing::warn!(kind = link.kind, "the mesh device is not of the requested kind: creating it again");
            self.remove(link)?;
            return Err(DeviceError::Creating);
        }
        self.server.select(link.as_ref());
        if link.is_some_and(|link| link.name != MESH) {
            // The server may find the device by its name only.
            self.reconcile_link(desired, inputs)?;
        }
        let status = self.configure(desired, inputs.is_current, silent)?;
        self.reconcile_link(desired, inputs)?;
        self.activate_key(desired);
        let states = Arc::new(configuration::peer_states(desired, &status, self.wall_clock()));
        let peers = configuration::peer_statuses(desired, &status);
        Ok(PassOutcome { peers, states, unrouted: self.unrouted.clone() })
    }

    /// Stores the decided key as the one in use. The device has it already, so that an error is only logged, once, and
    /// the next pass tries again.
    fn activate_key(&mut self, desired: &DesiredMeshDevice) {
        let error = match self.keys.activate(desired.public_key) {
            Ok(is_new) => {
                if is_new {
                    tracing::info!(public_key = %desired.public_key, "this node's new key is in use");
                }
                None
            }
            Err(error) => Some(Causes(&error).to_string()),
        };
        if let Some(error) = error.as_ref().filter(|error| self.key_error.as_ref() != Some(error)) {
            tracing::error!(%error, "this node's new key is in use, but could not be stored");
        }
        self.key_error = error;
    }

    /// Returns the device as a link, if it exists.
    fn find_link(&mut self, index: Option<u32>) -> Result<Option<Link>, DeviceError> {
        let Some(link) = self.kernel.find_mesh_link(index)? else { return Ok(None) };
        let is_ours = Some(link.index) == index || link.alias.as_deref() == Some(MESH_ALIAS);
        if !is_ours || !DeviceServer::KINDS.contains(&link.kind.as_str()) {
            return Err(DeviceError::Foreign);
        }
        if link.name != MESH && self.kernel.find_mesh_link(None)?.is_some() {
            return Err(DeviceError::NameConflict(link.name));
        }
        Ok(Some(link))
    }

    /// Changes the device's configuration until it is as required.
    fn configure(
        &mut self,
        desired: &DesiredMeshDevice,
        is_current: bool,
        silent: &BTreeSet<Ipv4Addr>,
    ) -> Result<WgDeviceStatus, DeviceError> {
        let mut status = self.server.status(desired.mtu)?;
        // `otherix-mesh` answers an old clock by itself, and would forget that it is old.
        let none = BTreeSet::new();
        let silent = if self.server.is_kernel() { silent } else { &none };
        let renewal = configuration::renewal(desired, &status, silent, self.wall_clock());
        if let Some(config) = &renewal {
            self.server.configure(config)?;
            status = self.server.status(desired.mtu)?;
        }
        for _ in 0..CONFIG_CHANGES {
            let change = configuration::required_change(configuration::Inputs {
                desired,
                key: self.keys.required(desired.public_key),
                port: self.server.port(),
                status: &status,
                configured: &self.configured,
                now: self.wall_clock(),
                is_current,
            });
            let Some(config) = change else { return Ok(status) };
            let (peers, key) = (config.peers.len(), config.private_key.is_some());
            match &renewal {
                None => tracing::info!(peers, key, "configuring `{MESH}`"),
                // Each second while a node is unreachable.
                Some(_) => tracing::debug!(peers, key, "configuring `{MESH}`"),
            }
            self.server.configure(&config)?;
            self.configured.extend(configuration::endpoints(&config));
            status = self.server.status(desired.mtu)?;
        }
        Err(DeviceError::NotConfigured)
    }

    /// The machine's time; 1970 if it is before that.
    fn wall_clock(&self) -> SystemTime {
        let micros = self.runtime.now().map_or(0, |now| now.unix_micros());
        UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Reads the device as a link and changes it as required, unless nothing has changed since it was last checked.
    fn reconcile_link(&mut self, desired: &DesiredMeshDevice, inputs: &PassInputs) -> Result<(), DeviceError> {
        let now = Instant::now();
        if self.checked.as_ref().is_some_and(|(checked, at)| checked == inputs && now.duration_since(*at) < RESYNC) {
            return Ok(());
        }
        let link = self.find_link(inputs.index)?.ok_or(DeviceError::Creating)?;
        let current = self.kernel.read_mesh_link(link)?;
        let MeshLinkPlan { changes, conflicts } =
            MeshLinkPlan::of(desired, &current, inputs.is_current, &inputs.needed);
        let mut unrouted: BTreeMap<_, _> =
            conflicts.into_iter().map(|(address, conflict)| (address, self.explain(address, conflict))).collect();
        if let Some(changes) = changes {
            // A route that cannot be added is tried again each second, and logged once.
            if self.unrouted.is_empty() {
                tracing::info!(?changes, "changing `{MESH}`");
            }
            unrouted.extend(self.kernel.change_mesh_link(current.link.index, &changes)?);
        }
        self.unrouted = unrouted;
        // Not everything that may resolve a fault is notified.
        self.checked = self.unrouted.is_empty().then(|| (inputs.clone(), now));
        self.unrouted.get(&desired.address).map_or(Ok(()), |text| Err(DeviceError::Conflict(text.clone())))
    }

    /// Returns the text of a conflict.
    fn explain(&mut self, address: Ipv4Addr, conflict: MeshConflict) -> String {
        let mut through = |index| {
            let name = self.kernel.name_of(index).unwrap_or_else(|_| index.to_string());
            format!("through `{name}`")
        };
        match conflict {
            MeshConflict::Need(need) => {
                format!("the mesh address {address} is one that this node needs {need}: use another mesh supernet")
            }
            MeshConflict::Address(link, other) => {
                let name = self.kernel.name_of(link).unwrap_or_else(|_| link.to_string());
                format!(
                    "the mesh address {address} overlaps {other}, an address of `{name}` on this node: change one of \
                    them"
                )
            }
            MeshConflict::Route(to, _) if to.length() == 32 => {
                "there is a route to it that otherix did not add: remove it".to_owned()
            }
            MeshConflict::Route(to, link) => {
                let through = link.map(&mut through).unwrap_or_default();
                format!("the mesh address {address} overlaps this node's route to {to} {through}: change one of them")
            }
        }
    }

    fn leave(&mut self, link: Option<Link>) -> Result<(), DeviceError> {
        match link {
            Some(link) => {
                tracing::info!("removing `{MESH}`: this node has left the cluster");
                self.remove(&link)
            }
            // A process may be about to create its device again.
            None => Ok(self.server.terminate()?),
        }
    }

    fn remove(&mut self, link: &Link) -> Result<(), DeviceError> {
        self.server.terminate()?;
        self.configured.clear();
        Ok(self.kernel.remove_mesh_link(link.index)?)
    }
}

//! The mesh's device brought to what it must be. Blocking: each call takes as long as the kernel and the device's process take.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use otherix_schemas::error::Causes;
use otherix_schemas::node::MeshPeerStatus;

use super::engine::{Engine, EngineError};
use super::keys::Keys;
use super::tunnel::{self, Told};
use crate::kernel::{Kernel, KernelError};
use crate::model::link::Link;
use crate::model::mesh::{DesiredMeshDevice, MeshLinkChanges};
use crate::model::mesh_device::{MESH, MESH_ALIAS};
use otherix_mesh::config::WgDeviceStatus;

/// How often in a row the device is told something, until it must be as it is to be: its key, its peers, and once more for
/// what somebody else told it meanwhile.
const TELLINGS: usize = 4;

/// How often the device is looked at as a link without a reason.
const RESYNC: Duration = Duration::from_secs(60);

/// What the device must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Task {
    /// The node's place in the mesh; nothing while it has none, and the device stays as it is.
    pub place: Option<Arc<DesiredMeshDevice>>,
    /// The node has left the cluster: there must be no device.
    pub leave: bool,
    /// All is known that was decided, so that what nobody needs can go.
    pub current: bool,
    /// The device's index, as far as it is known to be ours.
    pub index: Option<u32>,
    /// Counts what may have changed about it.
    pub news: u64,
}

/// Why the device is not as it must be. The texts are shown to users as an overlay's outcome.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeviceError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// What makes and serves it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Somebody else's device has the name.
    #[error("there is a device `{MESH}` that otherix did not make: remove or rename it")]
    Squatter,
    /// It is ours, and its name is somebody else's.
    #[error("`{MESH}` was renamed to `{0}`, and another device has its name: rename that one")]
    Exchanged(String),
    /// The device is told, and does not become what it is told.
    #[error("`{MESH}` does not take its configuration")]
    Deaf,
    /// It is being made.
    #[error("`{MESH}` is being made")]
    Coming,
}

/// How the mesh fares.
#[derive(Clone, Debug, Default)]
pub(super) struct Faring {
    /// The peers, as the device tells of them.
    pub(super) peers: Vec<MeshPeerStatus>,
    /// Nodes that are not reached, and why.
    pub(super) blocked: BTreeMap<Ipv4Addr, String>,
}

/// Brings the device to what it must be.
pub(super) struct Device {
    kernel: Kernel,
    keys: Keys,
    engine: Engine,
    told: Told,
    /// Nodes to which no route could be made, and why.
    blocked: BTreeMap<Ipv4Addr, String>,
    /// For what it was looked at as a link last, and when.
    looked: Option<(Task, Instant)>,
    /// What was said last of a key that could not be kept.
    unsettled: Option<String>,
}

impl Device {
    /// For this thread's network namespace.
    pub(super) fn new(keys: Keys, engine: Engine) -> Result<Self, KernelError> {
        Ok(Self {
            kernel: Kernel::open()?,
            keys,
            engine,
            told: Told::new(),
            blocked: BTreeMap::new(),
            looked: None,
            unsettled: None,
        })
    }

    pub(super) const fn keys(&mut self) -> &mut Keys {
        &mut self.keys
    }

    /// A connection with what serves the device, which ends with it; the kernel never does.
    pub(super) fn watch(&self) -> Option<UnixStream> {
        self.engine.watch()
    }

    /// Brings the device to what it must be; gives how the peers fare.
    ///
    /// # Errors
    /// [`DeviceError`]: it is not as it must be.
    pub(super) fn keep(&mut self, task: &Task) -> Result<Faring, DeviceError> {
        let link = self.link(task.index)?;
        if task.leave {
            return self.leave(link).map(|()| Faring::default());
        }
        let Some(place) = &task.place else { return Ok(Faring::default()) };
        if let Some(link) = link.as_ref().filter(|link| !self.engine.fits(link)) {
            tracing::warn!(kind = link.kind, "the mesh's device is of another kind than was asked for: making it anew");
            self.remove(link)?;
            return Err(DeviceError::Coming);
        }
        self.engine.begin(link.as_ref());
        if link.is_some_and(|link| link.name != MESH) {
            // What serves it may know it by its name only.
            self.look(place, task)?;
        }
        let status = self.tell(place, task.current)?;
        self.look(place, task)?;
        self.settle(place);
        Ok(Faring { peers: tunnel::peers(place, &status), blocked: self.blocked.clone() })
    }

    /// Makes the next key the one in use on the disk too. The device has it already: what is in the way is said, once, and tried again.
    fn settle(&mut self, place: &DesiredMeshDevice) {
        let unsettled = match self.keys.settle(place.public_key) {
            Ok(is_new) => {
                if is_new {
                    tracing::info!(public_key = %place.public_key, "this node's new key is in use");
                }
                None
            }
            Err(error) => Some(Causes(&error).to_string()),
        };
        if let Some(error) = unsettled.as_ref().filter(|text| self.unsettled.as_ref() != Some(text)) {
            tracing::error!(%error, "this node's new key is in use, and not yet kept");
        }
        self.unsettled = unsettled;
    }

    /// The device as a link, if there is one and it is ours.
    fn link(&mut self, index: Option<u32>) -> Result<Option<Link>, DeviceError> {
        let Some(link) = self.kernel.mesh_link(index)? else { return Ok(None) };
        let is_ours = Some(link.index) == index || link.alias.as_deref() == Some(MESH_ALIAS);
        if !is_ours || !Engine::KINDS.contains(&link.kind.as_str()) {
            return Err(DeviceError::Squatter);
        }
        if link.name != MESH && self.kernel.mesh_link(None)?.is_some() {
            return Err(DeviceError::Exchanged(link.name));
        }
        Ok(Some(link))
    }

    /// Tells the device until there is nothing more to tell.
    fn tell(&mut self, place: &DesiredMeshDevice, current: bool) -> Result<WgDeviceStatus, DeviceError> {
        let mut status = self.engine.serve(place.mtu)?;
        for _ in 0..TELLINGS {
            let key = (self.keys.in_use(place.public_key), self.engine.port());
            let Some(config) = tunnel::change(place, key, &status, &self.told, (SystemTime::now(), current)) else {
                return Ok(status);
            };
            tracing::info!(peers = config.peers.len(), key = config.private_key.is_some(), "configuring `{MESH}`");
            self.engine.set(&config)?;
            self.told.extend(tunnel::told(&config));
            status = self.engine.serve(place.mtu)?;
        }
        Err(DeviceError::Deaf)
    }

    /// Looks at the device as a link, when there is a reason to, and mends it.
    fn look(&mut self, place: &DesiredMeshDevice, task: &Task) -> Result<(), DeviceError> {
        let now = Instant::now();
        if self.looked.as_ref().is_some_and(|(looked, at)| looked == task && now.duration_since(*at) < RESYNC) {
            return Ok(());
        }
        let link = self.link(task.index)?.ok_or(DeviceError::Coming)?;
        let interface = self.kernel.mesh_interface(link)?;
        if let Some(changes) = MeshLinkChanges::of(place, &interface, task.current) {
            // What is blocked is tried again each second, and not said again.
            if self.blocked.is_empty() {
                tracing::info!(?changes, "changing `{MESH}`");
            }
            self.blocked = self.kernel.change_mesh(interface.link.index, &changes)?;
            if !self.blocked.is_empty() {
                // The kernel does not tell of all that may end that.
                self.looked = None;
                return Ok(());
            }
        }
        self.blocked.clear();
        self.looked = Some((task.clone(), now));
        Ok(())
    }

    fn leave(&mut self, link: Option<Link>) -> Result<(), DeviceError> {
        match link {
            Some(link) => {
                tracing::info!("removing `{MESH}`: this node has left the cluster");
                self.remove(&link)
            }
            // A process may be about to make its device again.
            None => Ok(self.engine.end()?),
        }
    }

    fn remove(&mut self, link: &Link) -> Result<(), DeviceError> {
        self.engine.end()?;
        self.told.clear();
        Ok(self.kernel.remove_mesh(link.index)?)
    }
}

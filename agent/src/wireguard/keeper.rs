//! Keeps the mesh's device beside the agent's loop: nothing that the device's process, its key or its peers do holds up the networks.
//!
//! Told by [`Mesh`] what the device must be, it works on a thread of its own, again whenever something changed, what serves the device
//! ended, or something failed; and looks at the device each second or so, for others can change it without a word. It
//! tells what is in the way, how the peers fare, and what this node offers the cluster.
//!
//! Cancel-safety: [`keep`] may be dropped when the agent stops, and only then: a pass under way is finished by its thread.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otherix_schemas::error::Causes;
use otherix_schemas::node::{MeshOffer, MeshPeerStatus};
use otherix_schemas::value::MeshEndpoint;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::device::{Device, DeviceError, Faring, Task};
use super::engine::{Backend, Engine};
use super::keys::{KeyFileError, Keys};
use super::process::Process;
use super::underlay;
use crate::control;
use crate::kernel::KernelError;
use crate::model::mesh::DesiredMeshDevice;
use crate::model::mesh_device::MeshFaults;

/// How often the device is looked at without a reason, with few peers.
const LOOK: Duration = Duration::from_secs(1);

/// With many, for each: 5 ms of pause for some 5 us of work keep it at a thousandth of a processor.
const LOOK_PER_PEER: Duration = Duration::from_millis(5);

/// How often it is looked from where NATS is reached: addresses change, and names are known again.
const OFFER: Duration = Duration::from_secs(5);

/// How this node takes part in the mesh.
#[derive(Clone, Debug)]
pub struct Options {
    /// What makes and serves the device.
    pub backend: Backend,
    /// Where the others reach this node; found out if absent.
    pub endpoint: Option<MeshEndpoint>,
    /// The UDP port to listen on, where `endpoint` names none.
    pub port: u16,
    /// The folder of the device's local socket.
    pub socket_folder: PathBuf,
    /// The program whose subcommand `mesh` is the device's process; this one if absent.
    pub program: Option<PathBuf>,
}

/// Why this node cannot take part in the mesh at all.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// It has no key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The kernel cannot be reached.
    #[error("cannot reach the kernel")]
    Kernel(#[from] KernelError),
}

/// What is said to the keeper, and what it says.
pub struct Mesh {
    tasks: watch::Sender<Task>,
    trouble: watch::Receiver<MeshFaults>,
    peers: watch::Receiver<Vec<MeshPeerStatus>>,
    offers: watch::Receiver<Option<MeshOffer>>,
}

/// The keeper's ends.
pub struct Keeper {
    tasks: watch::Receiver<Task>,
    trouble: watch::Sender<MeshFaults>,
    peers: watch::Sender<Vec<MeshPeerStatus>>,
    offers: watch::Sender<Option<MeshOffer>>,
    nats: otherix_transport::NatsEndpoint,
    options: Options,
    device: Device,
    /// What was said last of the node's own address.
    said: Option<String>,
    /// And of the next key.
    said_of_key: Option<String>,
}

impl Mesh {
    /// Begins. The offer is known when this returns, if it can be known by now.
    ///
    /// # Errors
    /// [`MeshError`].
    pub async fn begin(
        options: Options,
        state: &std::path::Path,
        nats: otherix_transport::NatsEndpoint,
    ) -> Result<(Self, Keeper), MeshError> {
        let (tasks, told) = watch::channel(Task::default());
        let (trouble, troubled) = watch::channel(MeshFaults::default());
        let (peers, faring) = watch::channel(Vec::new());
        let (offers, offered) = watch::channel(None);
        let engine = Engine::new(
            options.backend,
            Process::new(options.program.clone(), &options.socket_folder, options.port),
            options.port,
        );
        let device = Device::new(Keys::open(state)?, engine)?;
        let mut keeper =
            Keeper { tasks: told, trouble, peers, offers, nats, options, device, said: None, said_of_key: None };
        keeper.look_for_key();
        keeper.offer().await;
        Ok((Self { tasks, trouble: troubled, peers: faring, offers: offered }, keeper))
    }

    /// Of a node that takes no part.
    pub fn none() -> Self {
        let (tasks, trouble) = (watch::channel(Task::default()).0, watch::channel(MeshFaults::default()).1);
        Self { tasks, trouble, peers: watch::channel(Vec::new()).1, offers: watch::channel(None).1 }
    }

    /// Of a node that was to take part, and cannot for this reason.
    pub fn broken(why: String) -> Self {
        let (trouble, troubled) = watch::channel(MeshFaults::default());
        trouble.send_replace(MeshFaults { device: Some(why), nodes: BTreeMap::new() });
        Self { trouble: troubled, ..Self::none() }
    }

    /// Says what this node must be in the mesh.
    pub fn want(&self, place: Option<DesiredMeshDevice>, leave: bool, current: bool) {
        self.tasks.send_if_modified(|task| {
            let is_same = (task.place.as_deref(), task.leave, task.current) == (place.as_ref(), leave, current);
            if !is_same {
                (task.place, task.leave, task.current) = (place.map(Arc::new), leave, current);
            }
            !is_same
        });
    }

    /// Says that something about the device may have changed, and its index if it is ours.
    pub fn changed(&self, index: Option<u32>) {
        self.tasks.send_modify(|task| (task.index, task.news) = (index, task.news + 1));
    }

    /// Waits until what is in the way is something else, and gives it. For ever, once the keeper has ended.
    pub async fn trouble(&mut self) -> MeshFaults {
        if self.trouble.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.trouble.borrow_and_update().clone()
    }

    /// How the peers fare, for signs of life.
    pub fn peers(&self) -> watch::Receiver<Vec<MeshPeerStatus>> {
        self.peers.clone()
    }

    /// What this node offers the cluster.
    pub fn offers(&self) -> watch::Receiver<Option<MeshOffer>> {
        self.offers.clone()
    }
}

/// Keeps the device for as long as it is polled.
pub async fn keep(mut keeper: Keeper) {
    let mut backoff = control::backoff();
    let mut next_offer = tokio::time::Instant::now() + OFFER;
    loop {
        let task = keeper.tasks.borrow_and_update().clone();
        let peers = task.place.as_ref().map_or(0, |place| place.peers.len());
        let (mut keeper_back, result, ended) = match pass(keeper, task).await {
            Some(done) => done,
            None => return, // only when the runtime ends
        };
        let pause = match &result {
            Ok(_) => {
                backoff.reset();
                LOOK.max(LOOK_PER_PEER.saturating_mul(u32::try_from(peers).unwrap_or(u32::MAX)))
            }
            Err(_) => backoff.next_delay(),
        };
        keeper_back.say(result);
        keeper = keeper_back;
        let ended = async {
            match ended.and_then(|process| UnixStream::from_std(process).ok()) {
                Some(process) => drop(process.readable().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = keeper.tasks.changed() => if changed.is_err() { return },
            () = ended => {}
            () = tokio::time::sleep(pause) => {}
        }
        keeper.look_for_key();
        if tokio::time::Instant::now() >= next_offer || keeper.has_new_key() {
            keeper.offer().await;
            next_offer = tokio::time::Instant::now() + OFFER;
        }
    }
}

type Kept = Result<Faring, DeviceError>;

/// One pass, where it holds nobody up.
async fn pass(mut keeper: Keeper, task: Task) -> Option<(Keeper, Kept, Option<std::os::unix::net::UnixStream>)> {
    let work = move || {
        let kept = keeper.device.keep(&task);
        let is_kept = kept.is_ok() && task.place.is_some() && !task.leave;
        let ended = is_kept.then(|| keeper.device.watch()).flatten();
        let ended = ended.filter(|ended| ended.set_nonblocking(true).is_ok());
        (keeper, kept, ended)
    };
    tokio::task::spawn_blocking(work).await.ok()
}

impl Keeper {
    fn say(&mut self, kept: Kept) {
        let (trouble, peers) = match kept {
            Ok(Faring { peers, blocked }) => (MeshFaults { device: None, nodes: blocked }, Some(peers)),
            Err(error) => (MeshFaults { device: Some(Causes(&error).to_string()), nodes: BTreeMap::new() }, None),
        };
        self.trouble.send_if_modified(|said| {
            let is_news = *said != trouble;
            if is_news {
                match &trouble {
                    MeshFaults { device: Some(trouble), .. } => {
                        tracing::warn!(%trouble, "the mesh's device is not as it must be");
                    }
                    MeshFaults { device: None, nodes } if nodes.is_empty() => {
                        tracing::info!("the mesh's device is as it must be");
                    }
                    MeshFaults { device: None, nodes } => {
                        tracing::warn!(?nodes, "not every node is reached by the mesh")
                    }
                }
                *said = trouble;
            }
            is_news
        });
        if let Some(peers) = peers {
            self.peers.send_replace(peers);
        }
    }

    /// Takes the next key, if there is one. What is wrong with it is said once: the node goes on with the one that it has.
    fn look_for_key(&mut self) {
        let text = self.device.keys().look().err().map(|error| Causes(&error).to_string());
        if let Some(error) = text.as_ref().filter(|text| self.said_of_key.as_ref() != Some(text)) {
            tracing::error!(%error, "cannot take the mesh's next key");
        }
        self.said_of_key = text;
    }

    fn has_new_key(&mut self) -> bool {
        let offered = self.device.keys().offered().ok();
        offered.is_some() && self.offers.borrow().map(|offer| offer.public_key) != offered
    }

    /// Finds out what this node offers. What was offered stays while that cannot be found out.
    async fn offer(&mut self) {
        let endpoint = match self.options.endpoint {
            Some(endpoint) => Ok(endpoint),
            None => underlay::endpoint(&self.nats, self.options.port).await,
        };
        let text = endpoint.as_ref().err().map(|error| Causes(error).to_string());
        if let Some(error) = text.as_ref().filter(|text| self.said.as_ref() != Some(text)) {
            tracing::warn!(
                %error, hint = "otherix-agent run --mesh-endpoint ADDRESS:PORT",
                "it is not known where other nodes reach this one: it takes no part in the mesh as yet"
            );
        }
        self.said = text;
        let known = endpoint.ok().or_else(|| self.offers.borrow().map(|offer| offer.endpoint));
        let offer = match (known, self.device.keys().offered()) {
            (Some(endpoint), Ok(public_key)) => MeshOffer { public_key, endpoint },
            (None, Ok(_)) => return,
            (_, Err(error)) => return tracing::error!(error = %Causes(&error), "cannot offer a key to the mesh"),
        };
        self.offers.send_if_modified(|before| before.replace(offer) != Some(offer));
    }
}

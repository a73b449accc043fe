//! The task that reconciles the mesh device beside the agent's loop, so that neither the device's process nor its key
//! nor its peers delay the networks.
//!
//! Each pass runs on a thread of its own: when [`MeshHandle`] reports a change, when the device's process ends, after a
//! failure, and each second or so, because not every change by other programs is notified. The task publishes what
//! prevents the mesh from working, the state of the peers, and what this node offers to the cluster.
//!
//! Cancel-safety: [`MeshTask::run`] may be dropped when the agent stops, and only then: its thread completes a pass
//! that is under way.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::Runtime;
use otherix_schemas::error::Causes;
use otherix_schemas::node::{MeshOffer, MeshPeerStatus};
use otherix_schemas::value::MeshEndpoint;
use otherix_transport::NatsEndpoint;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::faults::Faults;
use super::keys::{KeyFileError, MeshKeys};
use super::probe::{self, PeerStates, PortsOfNode, Prober, ProberChannels};
use super::process::MeshProcess;
use super::reconcile::{DeviceError, MeshReconciler, PassInputs, PassOutcome};
use super::server::{Backend, DeviceServer};
use super::underlay;
use crate::control;
use crate::kernel::KernelError;
use crate::model::mesh::DesiredMeshDevice;
use crate::model::mesh_device::MeshFaults;
use crate::model::need::Needs;
use crate::model::vxlan::PORT;

/// The shortest interval of passes without a notification.
const INTERVAL: Duration = Duration::from_secs(1);

/// The interval for each peer: a pass takes some 5 us for each in this process and in that of the device, a thousandth
/// of this.
const INTERVAL_PER_PEER: Duration = Duration::from_millis(10);

/// How often the offer is renewed: the address that NATS is reached from may change, or its name become resolvable.
const OFFER_INTERVAL: Duration = Duration::from_secs(5);

/// How this node is part of the mesh.
#[derive(Clone, Debug)]
pub struct MeshTaskOptions {
    pub backend: Backend,
    /// The address at which other nodes reach this one; by default that of its connection to NATS, with `port`.
    pub endpoint: Option<MeshEndpoint>,
    /// The UDP port to listen on.
    pub port: u16,
    /// The UDP port of VXLAN in the mesh, which must be the same on all nodes.
    pub vxlan_port: u16,
    /// The folder of the device's local socket.
    pub socket_folder: PathBuf,
    /// An agent whose subcommand `mesh` to run as the device's process; by default `otherix-mesh` or this agent.
    pub program: Option<PathBuf>,
}

/// Why this node cannot be part of the mesh.
#[derive(Debug, thiserror::Error)]
pub enum MeshStartError {
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("cannot access the kernel")]
    Kernel(#[from] KernelError),
}

/// The handle of a [`MeshTask`].
pub struct MeshHandle {
    inputs: watch::Sender<PassInputs>,
    faults: Arc<watch::Sender<Faults>>,
    faults_receiver: watch::Receiver<Faults>,
    peers: watch::Receiver<Vec<MeshPeerStatus>>,
    offers: watch::Receiver<Option<MeshOffer>>,
    vxlan_port: u16,
}

/// Reconciles the mesh device.
pub struct MeshTask {
    inputs: watch::Receiver<PassInputs>,
    faults: Arc<watch::Sender<Faults>>,
    peers: watch::Sender<Vec<MeshPeerStatus>>,
    states: watch::Sender<PeerStates>,
    /// The peers that no packet passes to and back.
    silent: watch::Receiver<BTreeSet<Ipv4Addr>>,
    prober: Option<Prober>,
    offers: watch::Sender<Option<MeshOffer>>,
    nats: NatsEndpoint,
    options: MeshTaskOptions,
    reconciler: MeshReconciler,
    /// The error that was last logged about this node's endpoint.
    endpoint_error: Option<String>,
    /// The error that was last logged about the next key.
    key_error: Option<String>,
    runtime: Arc<dyn Runtime>,
}

impl MeshHandle {
    /// Prepares a task, which is to be run. [`Self::offers`] has this node's offer already, if its endpoint is known.
    ///
    /// # Errors
    /// [`MeshStartError`].
    pub async fn start(
        options: MeshTaskOptions,
        state: &Path,
        nats: NatsEndpoint,
        runtime: Arc<dyn Runtime>,
    ) -> Result<(Self, MeshTask), MeshStartError> {
        let (inputs_sender, inputs) = watch::channel(PassInputs::default());
        let (faults, faults_receiver) = watch::channel(Faults::default());
        let faults = Arc::new(faults);
        let (states, states_receiver) = watch::channel(PeerStates::default());
        let (silent_sender, silent) = watch::channel(BTreeSet::new());
        let channels = ProberChannels {
            inputs: inputs.clone(),
            states: states_receiver,
            faults: Arc::clone(&faults),
            silent: silent_sender,
        };
        let prober = Some(Prober::new(
            channels,
            PortsOfNode { mesh: options.port, vxlan: options.vxlan_port },
            Arc::clone(&runtime),
        ));
        let (peers, peers_receiver) = watch::channel(Vec::new());
        let (offers, offers_receiver) = watch::channel(None);
        let vxlan_port = options.vxlan_port;
        let process = MeshProcess::new(options.program.clone(), &options.socket_folder, options.port);
        let server = DeviceServer::new(options.backend, process, options.port);
        let reconciler = MeshReconciler::new(MeshKeys::open(state)?, server, Arc::clone(&runtime))?;
        let (endpoint_error, key_error) = (None, None);
        let mut task = MeshTask {
            inputs,
            faults: Arc::clone(&faults),
            peers,
            states,
            silent,
            prober,
            offers,
            nats,
            options,
            reconciler,
            endpoint_error,
            key_error,
            runtime,
        };
        task.read_next_key();
        task.offer().await;
        let (peers, offers) = (peers_receiver, offers_receiver);
        Ok((Self { inputs: inputs_sender, faults, faults_receiver, peers, offers, vxlan_port }, task))
    }

    /// For a node that is not part of the mesh.
    pub fn disabled() -> Self {
        let (faults, faults_receiver) = watch::channel(Faults::default());
        Self {
            inputs: watch::channel(PassInputs::default()).0,
            faults: Arc::new(faults),
            faults_receiver,
            peers: watch::channel(Vec::new()).1,
            offers: watch::channel(None).1,
            vxlan_port: PORT,
        }
    }

    /// For a node that cannot be part of the mesh, for this reason.
    pub fn failed(reason: String) -> Self {
        let handle = Self::disabled();
        handle.faults.send_modify(|faults| faults.device = Some(reason));
        handle
    }

    /// Sets what the device must be. `is_current`: the cluster view is current, so that what no decision requires can
    /// be removed. Further peers have a fault at once, until packets have passed to them and back; the first
    /// ones, those of an agent that has just started, when packets do not pass.
    pub fn set_desired(&self, desired: Option<DesiredMeshDevice>, has_left: bool, is_current: bool) {
        self.inputs.send_if_modified(|inputs| {
            let before = (inputs.desired.as_deref(), inputs.has_left, inputs.is_current);
            let is_changed = before != (desired.as_ref(), has_left, is_current);
            if is_changed {
                self.expect_proof(inputs.desired.as_deref(), desired.as_ref());
                (inputs.desired, inputs.has_left, inputs.is_current) = (desired.map(Arc::new), has_left, is_current);
            }
            is_changed
        });
    }

    /// Sets the mesh addresses that this node must be able to reach for another reason.
    pub fn set_needed(&self, needed: Needs) {
        self.inputs.send_if_modified(|inputs| {
            let is_changed = inputs.needed != needed;
            inputs.needed = needed;
            is_changed
        });
    }

    /// Sets the mesh addresses of the nodes that packets of this node's guests may pass to: breaks on the way to them
    /// are found soon, however many other nodes there are.
    pub fn set_watched(&self, watched: BTreeSet<Ipv4Addr>) {
        self.inputs.send_if_modified(|inputs| {
            let is_changed = *inputs.watched != watched;
            if is_changed {
                inputs.watched = Arc::new(watched);
            }
            is_changed
        });
    }

    /// Adds a fault for each further peer.
    fn expect_proof(&self, before: Option<&DesiredMeshDevice>, desired: Option<&DesiredMeshDevice>) {
        let (Some(before), Some(desired)) = (before, desired) else { return };
        let addresses = |device: &DesiredMeshDevice| device.peers.values().map(|peer| peer.address).collect();
        let (before, desired): (BTreeSet<_>, BTreeSet<_>) = (addresses(before), addresses(desired));
        let further: BTreeSet<_> = desired.difference(&before).collect();
        if !further.is_empty() {
            let unproven = further.into_iter().map(|address| (*address, probe::UNPROVEN.to_owned()));
            self.faults.send_modify(|faults| faults.unproven.extend(unproven));
        }
    }

    /// Reports that the device may have changed. `index` is that of the device, if it is known to be ours.
    pub fn device_changed(&self, index: Option<u32>) {
        self.inputs.send_modify(|inputs| (inputs.index, inputs.changes) = (index, inputs.changes + 1));
    }

    /// Waits until the faults change, and returns them.
    pub async fn faults(&mut self) -> MeshFaults {
        if self.faults_receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.faults_receiver.borrow_and_update().merged()
    }

    /// Returns the present faults.
    pub fn current_faults(&self) -> MeshFaults {
        self.faults.borrow().merged()
    }

    /// The state of the peers, for heartbeats.
    pub fn peers(&self) -> watch::Receiver<Vec<MeshPeerStatus>> {
        self.peers.clone()
    }

    /// The UDP port of VXLAN on this node.
    pub const fn vxlan_port(&self) -> u16 {
        self.vxlan_port
    }

    /// What this node offers to the cluster.
    pub fn offers(&self) -> watch::Receiver<Option<MeshOffer>> {
        self.offers.clone()
    }
}

impl MeshTask {
    /// Runs until the handle is dropped.
    pub async fn run(mut self) {
        let prober = self.prober.take();
        let probes = async {
            match prober {
                Some(prober) => prober.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.reconcile() => {}
            () = probes => {}
        }
    }

    async fn reconcile(self) {
        let mut task = self;
        let mut backoff = control::backoff(task.runtime.as_ref());
        let mut next_offer = Instant::now() + OFFER_INTERVAL;
        loop {
            let inputs = task.inputs.borrow_and_update().clone();
            let peers = inputs.desired.as_ref().map_or(0, |desired| desired.peers.len());
            // None only when the runtime shuts down.
            let Some((returned, result, process)) = task.pass(inputs).await else { return };
            task = returned;
            let pause = match &result {
                Ok(_) => {
                    backoff.reset();
                    INTERVAL.max(INTERVAL_PER_PEER.saturating_mul(u32::try_from(peers).unwrap_or(u32::MAX)))
                }
                Err(_) => backoff.next_delay(),
            };
            task.publish(result);
            let process_ended = async {
                match process.and_then(|process| UnixStream::from_std(process).ok()) {
                    Some(process) => drop(process.readable().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = task.inputs.changed() => if changed.is_err() { return },
                _ = task.silent.changed() => {}
                () = process_ended => {}
                () = sleep(pause) => {}
            }
            task.read_next_key();
            if Instant::now() >= next_offer || task.has_new_key() {
                task.offer().await;
                next_offer = Instant::now() + OFFER_INTERVAL;
            }
        }
    }

    /// Runs a pass on a thread for blocking work. Returns the connection that ends with the device's process, too.
    async fn pass(mut self, inputs: PassInputs) -> Option<(Self, PassResult, Option<unix::net::UnixStream>)> {
        let runtime = Arc::clone(&self.runtime);
        let silent = self.silent.borrow_and_update().clone();
        let work = move || {
            let result = self.reconciler.pass(&inputs, &silent);
            let is_ready = result.is_ok() && inputs.desired.is_some() && !inputs.has_left;
            let process = is_ready.then(|| self.reconciler.watch()).flatten();
            let process = process.filter(|process| process.set_nonblocking(true).is_ok());
            (self, result, process)
        };
        runtime.run_blocking("mesh device", work).await.ok()
    }

    /// Publishes faults and peers, and logs changes of the faults. After a failure the peers stay as they were.
    fn publish(&mut self, result: PassResult) {
        let (device, outcome) = match result {
            Ok(outcome) => (None, Some(outcome)),
            Err(error) => (Some(Causes(&error).to_string()), None),
        };
        self.faults.send_if_modified(|faults| {
            let unrouted = outcome.as_ref().map(|outcome| outcome.unrouted.clone()).unwrap_or_default();
            if (&faults.device, &faults.unrouted) == (&device, &unrouted) {
                return false;
            }
            match &device {
                Some(error) => tracing::warn!(error, "the mesh device is not as required"),
                None if unrouted.is_empty() => tracing::info!("the mesh device is as required"),
                None => tracing::warn!(nodes = ?unrouted, "there is no route to some nodes of the mesh"),
            }
            (faults.device, faults.unrouted) = (device, unrouted);
            true
        });
        if let Some(PassOutcome { peers, states, unrouted: _ }) = outcome {
            self.states.send_replace(states);
            self.peers.send_replace(peers);
        }
    }

    /// Reads the next key, if there is one. An error is logged once: the current key stays in use.
    fn read_next_key(&mut self) {
        let error = self.reconciler.keys().read_next().err().map(|error| Causes(&error).to_string());
        if let Some(error) = error.as_ref().filter(|error| self.key_error.as_ref() != Some(error)) {
            tracing::error!(%error, "cannot read the next key of the mesh");
        }
        self.key_error = error;
    }

    fn has_new_key(&mut self) -> bool {
        let offered = self.reconciler.keys().offered().ok();
        offered.is_some() && self.offers.borrow().map(|offer| offer.public_key) != offered
    }

    /// Renews the offer. While the endpoint is unknown, the last one stays.
    async fn offer(&mut self) {
        let endpoint = match self.options.endpoint {
            Some(endpoint) => Ok(endpoint),
            None => underlay::endpoint(&self.nats, self.options.port).await,
        };
        let error = endpoint.as_ref().err().map(|error| Causes(error).to_string());
        if let Some(error) = error.as_ref().filter(|error| self.endpoint_error.as_ref() != Some(error)) {
            tracing::warn!(
                %error, hint = "otherix-agent run --mesh-endpoint ADDRESS:PORT",
                "the address at which other nodes reach this one is unknown: it is not part of the mesh yet"
            );
        }
        self.endpoint_error = error;
        let endpoint = endpoint.ok().or_else(|| self.offers.borrow().map(|offer| offer.endpoint));
        let offer = match (endpoint, self.reconciler.keys().offered()) {
            (Some(endpoint), Ok(public_key)) => MeshOffer { public_key, endpoint },
            (None, Ok(_)) => return,
            (_, Err(error)) => return tracing::error!(error = %Causes(&error), "cannot offer a key to the mesh"),
        };
        self.offers.send_if_modified(|before| before.replace(offer) != Some(offer));
    }
}

type PassResult = Result<PassOutcome, DeviceError>;

//! Rounds: plan, take some steps, look, plan again. Owns what is known of the links and which steps are not to be tried for now.
//!
//! What is known of links and IPv4 is kept up to date by what the kernel tells; how links are as ports, default routes and the
//! packet filter are read anew when it tells that they changed. All is read anew when something of that was lost and every minute. The outcomes of a round come from the plan that is made after its steps.
//!
//! A round ends after some creations and repairs or after one removal, so that what is decided meanwhile gets its turn.
//! Nobody who changes links without end can keep this busy: see [`patience`]. What the kernel tells comes in by [`hearing`]; what may have
//! changed is planned anew, and no more: [`planned`].
//!
//! Cancel-safety: [`Reconciler::woken`] may be dropped. So may [`Reconciler::round`] when the agent stops, and only then: the kernel
//! finishes the step, and nobody takes in what came of it.

mod hearing;
mod patience;
mod planned;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use otherix_schemas::id::ClusterId;
use otherix_schemas::outcome::{ResourceOutcome, ResourceRef};
use tokio::time::Instant;

use self::patience::{Pace, Patience};
use self::planned::{News, Planned};
use crate::kernel::{Kernel, KernelError, Parts, Watch};
use crate::model::desired::Desired;
use crate::model::mesh::Trouble;
use crate::model::observed::Observed;
use crate::model::owner::Owner;
use crate::model::plan::{Failures, Plan, Step, plan, plan_only};

/// How often all links are read although nothing seems to be amiss.
const RESYNC: Duration = Duration::from_secs(60);

/// When they are read again after changes disturbed it so that one may be missing.
const RESYNC_SOON: Duration = Duration::from_secs(1);

/// When they are read again while something is waited for of whose coming the kernel may not tell.
const RESYNC_UNTOLD: Duration = Duration::from_secs(2);

/// When what changed while it was read is read again; and the packet filter while others change it so often that it cannot be.
const REREAD: Duration = Duration::from_millis(50);

/// Most creations and repairs in a round.
const BATCH: usize = 64;

/// Most creations and repairs that hold up signs of life and everything else, for some milliseconds together.
const QUICK: usize = 4;

/// Brings this node's links to what they must be.
pub struct Reconciler {
    kernel: Arc<Mutex<Kernel>>,
    watch: Watch,
    observed: Observed,
    interest: Interest,
    news: News,
    planned: Planned,
    /// What must be read anew.
    stale: Parts,
    /// Changes were missed since they were read last.
    missed: bool,
    /// Something about the mesh's device may have changed.
    mesh_news: bool,
    resync_at: Instant,
    patience: Patience,
    /// When a pause is over and a round is due.
    retry_at: Option<Instant>,
    pace: Pace,
}

/// What a plan may depend on.
#[derive(Debug, Default)]
struct Interest {
    /// How links are as ports: there are taps or VLANs.
    ports: bool,
    /// How ports are matters to networks, too: some have a VLAN, or are overlays.
    of_networks: bool,
    /// IPv4, and what others filter: there are ways out.
    nat: bool,
    /// The packet filter: there are ways out or overlays.
    firewall: bool,
}

impl Interest {
    fn is_of(&mut self, desired: &Desired) {
        let bridges = || desired.networks.values().filter_map(|network| network.want.bridge());
        let has_overlays = desired.overlays().next().is_some();
        self.of_networks = has_overlays || bridges().any(|bridge| bridge.vlan.is_some());
        self.ports = self.of_networks || !desired.nics.is_empty();
        self.nat = bridges().any(|bridge| bridge.nat.is_some());
        self.firewall = self.nat || has_overlays;
    }
}

const NOTHING: Parts = Parts { links: false, ports: false, routes: false, firewall: false };
const EVERYTHING: Parts = Parts { links: true, ports: true, routes: true, firewall: true };

/// What came of a round.
#[derive(Clone, Debug)]
pub struct Round {
    /// Of the networks and NICs that no step is left to take for, unless they are as they were in the round before.
    pub outcomes: Vec<ResourceOutcome>,
    /// What goes wrong with devices that no known network has.
    pub notices: Vec<String>,
    /// Steps are left: there should be another round.
    pub more: bool,
}

impl Reconciler {
    /// For the links of this thread's network namespace.
    ///
    /// # Errors
    /// When there can be no netlink socket.
    pub fn new() -> Result<Self, KernelError> {
        let now = Instant::now();
        Ok(Self {
            kernel: Arc::new(Mutex::new(Kernel::open()?)),
            watch: Watch::open()?,
            observed: Observed::default(),
            interest: Interest::default(),
            news: News::default(),
            planned: Planned::default(),
            stale: EVERYTHING,
            missed: false,
            mesh_news: false,
            resync_at: now + RESYNC,
            patience: Patience::default(),
            retry_at: None,
            pace: Pace::new(now),
        })
    }

    /// Waits until there may be a reason for a round; [`Reconciler::absorb`] says whether there is one.
    pub async fn woken(&mut self) {
        let due = self.retry_at.map_or(self.resync_at, |at| at.min(self.resync_at));
        let watch = &mut self.watch;
        let news = async {
            if let Some(next) = self.pace.next() {
                tokio::time::sleep_until(next).await;
            }
            watch.readable().await;
        };
        tokio::select! {
            () = news => self.pace.step(Instant::now()),
            () = tokio::time::sleep_until(due) => {}
        }
    }

    /// Takes in what the kernel has told and what time it is. Says whether there is a reason for a round.
    pub fn absorb(&mut self) -> bool {
        let now = Instant::now();
        let reason = self.drain();
        if now >= self.resync_at {
            self.stale = EVERYTHING;
        }
        let due = self.retry_at.take_if(|at| now >= *at).is_some();
        reason || due || self.stale.links
    }

    /// One round.
    ///
    /// # Errors
    /// When the links cannot be read. A step that fails is no error: it is the outcome of its network.
    pub async fn round(&mut self, desired: &Desired, current: bool) -> Result<Round, KernelError> {
        self.interest.is_of(desired);
        self.absorb();
        self.refresh().await?;
        let mut plan = self.plan(desired, current, &[]);
        if !plan.steps.is_empty() {
            let Plan { steps, mut outcomes, mut warnings, .. } = plan;
            self.take(batch(&steps), desired.cluster).await;
            self.drain();
            self.refresh().await?;
            plan = self.plan(desired, current, &steps);
            // What is planned anew takes the place of what was said before.
            outcomes.retain(|id, _| !self.planned.networks.contains(id));
            warnings.retain(|id, _| !self.planned.networks.contains(id));
            plan.outcomes.append(&mut outcomes);
            plan.warnings.append(&mut warnings);
        }
        let Plan { steps, outcomes, nics, mut warnings, notices, recheck } = plan;
        let now = Instant::now();
        let reread_at = (self.to_read() != NOTHING).then_some(now + REREAD);
        self.retry_at = [self.patience.due(now), reread_at].into_iter().flatten().min();
        if recheck {
            self.resync_at = self.resync_at.min(now + RESYNC_UNTOLD);
        }
        let networks = outcomes.into_iter().filter_map(|(id, outcome)| {
            let generation = desired.networks.get(&id)?.generation;
            let warnings = warnings.remove(&id).unwrap_or_default();
            Some(ResourceOutcome { resource: ResourceRef::Network(id), generation, outcome, warnings })
        });
        let mut outcomes: Vec<_> = networks.collect();
        outcomes.extend(nics.into_iter().filter_map(|(id, outcome)| {
            let generation = desired.nics.get(&id)?.generation;
            Some(ResourceOutcome::new(ResourceRef::Nic(id), generation, outcome))
        }));
        Ok(Round { outcomes, notices, more: !steps.is_empty() })
    }

    /// For tests of what a kill leaves: see [`Kernel::set_fuse`].
    pub fn set_fuse(&mut self, messages: usize) {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner).set_fuse(messages);
    }

    /// The devices that carry an alias of ours, of whatever cluster, with their names.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub async fn ours(&mut self) -> Result<Vec<(Owner, String)>, KernelError> {
        self.absorb();
        self.refresh().await?;
        let of = |owner| self.observed.owned(owner).map(move |link| (owner, link.name.clone()));
        Ok(self.observed.owners().flat_map(of).collect())
    }

    /// Has the next round say how everything fares, not only what may have changed since the last.
    pub fn say_all(&mut self) {
        self.planned.is_whole = false;
    }

    /// Whether something about the mesh's device may have changed since this was asked last; and its index, if it is there and ours.
    pub fn mesh_news(&mut self) -> Option<Option<u32>> {
        std::mem::take(&mut self.mesh_news).then(|| self.observed.mesh().map(|link| link.index))
    }

    /// Takes in what keeps the mesh from being as it must be. Says whether that is news.
    pub fn set_mesh_trouble(&mut self, trouble: Trouble) -> bool {
        let is_news = self.observed.mesh_trouble != trouble;
        if is_news {
            self.observed.mesh_trouble = trouble;
            self.news.others = true;
        }
        is_news
    }

    /// Plans what may have changed since the last plan, or everything; the steps of the plan before are `left`.
    fn plan(&mut self, desired: &Desired, current: bool, left: &[Step]) -> Plan {
        let failures = self.patience.failures(left, Instant::now());
        let (is_calm, for_whom) = (failures == Failures::default(), (desired.cluster, desired.is_former, current));
        let news = std::mem::take(&mut self.news);
        let only = self.planned.may_differ(desired, for_whom, &news, &self.observed).filter(|_| is_calm);
        let mut plan = match &only {
            Some(only) => plan_only(desired, &self.observed, &failures, current, only),
            None => plan(desired, &self.observed, &failures, current),
        };
        self.planned.take_in(desired, for_whom, (only, is_calm), &mut plan);
        plan
    }

    async fn take(&mut self, steps: Vec<Step>, cluster: ClusterId) {
        if steps.is_empty() {
            return;
        }
        steps.iter().for_each(|step| tracing::info!(step = %step, "changing the node"));
        let is_quick = is_quick(&steps);
        let work = move |kernel: &mut Kernel| {
            let results = kernel.execute(&steps, cluster);
            Ok(steps.into_iter().zip(results).collect::<Vec<_>>())
        };
        let taken = if is_quick {
            work(&mut self.kernel.lock().unwrap_or_else(PoisonError::into_inner))
        } else {
            self.blocking(work).await
        };
        let results = match taken {
            Ok(results) => results,
            Err(error) => return tracing::error!(error = %error, "the steps were not taken"),
        };
        self.drain();
        let now = Instant::now();
        for (step, result) in results {
            // What was written is read back, and what was refused may show that something was missed.
            match &step {
                Step::Rules(_) => self.stale.firewall = true,
                Step::CreateTap { .. }
                | Step::RepairTap { .. }
                | Step::CreateVtep { .. }
                | Step::RepairVtep { .. }
                | Step::Forward { .. } => self.stale.ports = true,
                Step::Repair { changes, .. } => self.stale.ports |= changes.vlan.is_some(),
                Step::Uplink { .. } | Step::Create { .. } | Step::Remove { .. } => {}
            }
            let Err(error) = result else {
                self.patience.done(&step, now);
                continue;
            };
            if self.is_gone(&step) {
                tracing::info!(step = %step, error = %error, "somebody removed the device meanwhile");
                continue;
            }
            tracing::warn!(step = %step, error = %error, "the kernel refused");
            self.patience.refused(&step, error.to_string(), now);
            match self.squatted(&step) {
                Some(resource) => self.patience.excuse(resource),
                None => self.stale = EVERYTHING,
            }
        }
    }

    /// What could not be made because somebody has the name.
    fn squatted(&self, step: &Step) -> Option<ResourceRef> {
        let (name, resource) = match step {
            Step::Create { network, bridge } => (&bridge.name, ResourceRef::Network(*network)),
            Step::CreateTap { nic, tap, .. } => (&tap.name, ResourceRef::Nic(*nic)),
            Step::CreateVtep { network, vtep, .. } => (&vtep.name, ResourceRef::Network(*network)),
            Step::Rules(_)
            | Step::Uplink { .. }
            | Step::Repair { .. }
            | Step::RepairTap { .. }
            | Step::RepairVtep { .. }
            | Step::Forward { .. }
            | Step::Remove { .. } => return None,
        };
        self.observed.named(name).map(|_| resource)
    }

    /// Whether a step came too late for its device. The kernel tells that a device is down before it is gone, and has who would
    /// mend it wait until then.
    fn is_gone(&self, step: &Step) -> bool {
        match step {
            Step::Repair { index, .. }
            | Step::RepairTap { index, .. }
            | Step::RepairVtep { index, .. }
            | Step::Forward { index, .. } => self.observed.link(*index).is_none(),
            Step::Rules(_)
            | Step::Uplink { .. }
            | Step::Create { .. }
            | Step::CreateTap { .. }
            | Step::CreateVtep { .. }
            | Step::Remove { .. } => false,
        }
    }

    /// Runs `work` on a thread where it holds nobody up: a removal takes 30 ms, and longer while others hold the kernel's lock.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Kernel) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T, KernelError> {
        let kernel = Arc::clone(&self.kernel);
        let run = move || work(&mut kernel.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(run).await.map_err(KernelError::Aborted)?
    }
}

/// Whether steps take so little time that to hand them to another thread would take longer: a few bridges or taps, 0.3 ms each.
fn is_quick(steps: &[Step]) -> bool {
    steps.len() <= QUICK
        && !steps.iter().any(|step| step.is_removal() || matches!(step, Step::Rules(_) | Step::Forward { .. }))
}

/// The steps of one round: the packet filter, creations and repairs, or if there are none the first removal.
fn batch(steps: &[Step]) -> Vec<Step> {
    let others: Vec<_> = steps.iter().take_while(|step| !step.is_removal()).take(BATCH).cloned().collect();
    if others.is_empty() { steps.iter().take(1).cloned().collect() } else { others }
}

//! Rounds: plan, take some steps, look, plan again. Owns what is known of the links and which steps the kernel refused.
//!
//! What is known of the links is kept up to date by what the kernel tells, and read anew when something of that was lost and
//! every minute. The outcomes of a round come from the plan that is made after its steps.
//!
//! A round ends after some creations and repairs or after one removal, so that what is decided meanwhile gets its turn.
//!
//! Cancel-safety: [`Reconciler::woken`] may be dropped. So may [`Reconciler::round`] when the agent stops, and only then: the kernel
//! finishes the step, and nobody takes in what came of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use otherix_schemas::id::ClusterId;
use otherix_schemas::outcome::NetworkOutcome;
use tokio::time::Instant;

use crate::kernel::{Kernel, KernelError, Watch};
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::plan::{Failures, Plan, Step, plan};

/// How often all links are read although nothing seems to be amiss.
const RESYNC: Duration = Duration::from_secs(60);

/// Pause before the kernel is asked again what it refused; it doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Most creations and repairs in a round.
const BATCH: usize = 64;

/// Brings this node's links to what they must be.
pub struct Reconciler {
    kernel: Arc<Mutex<Kernel>>,
    watch: Watch,
    observed: Observed,
    /// The links must be read anew.
    stale: bool,
    resync_at: Instant,
    failures: Failures,
    retry_at: Option<Instant>,
    retry_pause: Duration,
}

/// What came of a round.
#[derive(Debug)]
pub struct Round {
    /// Of the networks that no step is left to take for.
    pub outcomes: Vec<NetworkOutcome>,
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
        Ok(Self {
            kernel: Arc::new(Mutex::new(Kernel::open()?)),
            watch: Watch::open()?,
            observed: Observed::default(),
            stale: true,
            resync_at: Instant::now() + RESYNC,
            failures: Failures::default(),
            retry_at: None,
            retry_pause: RETRY_MIN,
        })
    }

    /// Waits until there may be a reason for a round; [`Reconciler::absorb`] says whether there is one.
    pub async fn woken(&mut self) {
        let due = self.retry_at.map_or(self.resync_at, |at| at.min(self.resync_at));
        tokio::select! {
            () = self.watch.readable() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }

    /// Takes in what the kernel has told and what time it is. Says whether there is a reason for a round.
    pub fn absorb(&mut self) -> bool {
        let now = Instant::now();
        let mut reason = self.drain();
        if now >= self.resync_at {
            self.stale = true;
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            self.failures = Failures::default();
            reason = true;
        }
        reason || self.stale
    }

    /// One round.
    ///
    /// # Errors
    /// When the links cannot be read. A step that fails is no error: it is the outcome of its network.
    pub async fn round(&mut self, desired: &Desired, current: bool) -> Result<Round, KernelError> {
        self.absorb();
        self.refresh().await?;
        let before = plan(desired, &self.observed, &self.failures, current);
        for step in batch(before.steps) {
            self.take(step, desired.cluster).await;
            self.drain();
        }
        self.refresh().await?;
        let Plan { steps, outcomes, notices } = plan(desired, &self.observed, &self.failures, current);
        if self.failures.is_empty() && steps.is_empty() {
            self.retry_pause = RETRY_MIN;
        }
        let outcomes = outcomes.into_iter().filter_map(|(network_id, outcome)| {
            let generation = desired.networks.get(&network_id)?.generation;
            Some(NetworkOutcome { network_id, generation, outcome })
        });
        Ok(Round { outcomes: outcomes.collect(), notices, more: !steps.is_empty() })
    }

    /// Takes in what the kernel has told. Says whether a link changed in what matters.
    fn drain(&mut self) -> bool {
        let Ok(changes) = self.watch.drain() else {
            tracing::warn!("the kernel told more of links than could be taken in: reading them all");
            self.stale = true;
            return true;
        };
        let mut changed = false;
        for change in changes {
            changed |= self.observed.apply(change);
        }
        changed
    }

    /// Reads all links if that is due. What the kernel tells meanwhile comes on top of it.
    async fn refresh(&mut self) -> Result<(), KernelError> {
        if self.stale {
            self.resync_at = Instant::now() + RESYNC;
            self.observed = self.blocking(Kernel::observe).await?;
            self.stale = false;
            self.drain();
        }
        Ok(())
    }

    async fn take(&mut self, step: Step, cluster: ClusterId) {
        tracing::info!(step = %step, "changing links");
        let taken = step.clone();
        if let Err(error) = self.blocking(move |kernel| kernel.execute(&taken, cluster)).await {
            tracing::warn!(step = %step, error = %error, "the kernel refused");
            self.failures.add(&step, error.to_string());
            // What it refused may show that something was missed.
            self.stale = true;
            if self.retry_at.is_none() {
                self.retry_at = Some(Instant::now() + self.retry_pause);
                self.retry_pause = (self.retry_pause * 2).min(RETRY_MAX);
            }
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

/// The steps of one round: creations and repairs, or if there are none the first removal.
fn batch(steps: Vec<Step>) -> Vec<Step> {
    let is_removal = |step: &Step| matches!(step, Step::Remove { .. });
    let length = if steps.first().is_some_and(is_removal) { 1 } else { BATCH };
    let mut first = true;
    let wanted = move |step: &Step| std::mem::take(&mut first) || !is_removal(step);
    steps.into_iter().take_while(wanted).take(length).collect()
}

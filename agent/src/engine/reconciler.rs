//! Reconciliation passes: observe, plan, execute some steps, observe, plan again. Owns the observed state and the retry
//! policy.
//!
//! Notifications keep links and IPv4 up to date; bridge ports, default routes and the packet filter are read again when
//! a notification says that they changed. A resync reads everything again, every minute and when notifications were
//! lost. The outcomes of a pass are those of the plan that is made after its steps.
//!
//! A pass ends after some creations and repairs, or after one removal, so that it does not delay decisions that arrive
//! meanwhile. [`super::retry`] limits what other programs can cause by changing links again and again. Notifications
//! are applied in `notifications`; `cache` determines what is planned again.
//!
//! Cancel-safety: [`Reconciler::wait`] may be dropped. [`Reconciler::pass`] may be dropped only when the agent stops:
//! the kernel completes the step, and its result is lost.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use otherix_runtime::Runtime;
use otherix_schemas::id::ClusterId;
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use tokio::time::Instant;

use super::cache::{CacheKey, DirtySet, PlanCache};
use super::context::PlanInputs;
use super::execute::execute;
use super::kind::{Interest, Kinds};
use super::memo::Memos;
use super::plan::{Plan, plan_with};
use super::retry::{RetryPolicy, TokenBucket, UNDONE};
use super::step::Step;
use super::step_log::StepLog;
use super::subject::Subject;
use crate::kernel::{Kernel, KernelError, KernelWatch};
use crate::model::desired::Desired;
use crate::model::observed::{Observed, Parts};
use crate::model::owner::Owner;
use crate::model::withdrawal::{Withdrawal, Withdrawals};

/// The interval of resyncs.
pub(super) const RESYNC: Duration = Duration::from_secs(60);

/// The delay of a resync after a dump that changes interrupted, so that a link may be missing.
pub(super) const RESYNC_AFTER_LOSS: Duration = Duration::from_secs(1);

/// The interval of resyncs while a resource waits for a change that the kernel may not notify of.
const RESYNC_UNNOTIFIED: Duration = Duration::from_secs(2);

/// The delay before a part is read again that changed while it was read, such as the packet filter.
const REREAD: Duration = Duration::from_millis(50);

/// Most creations and repairs of a pass.
const BATCH: usize = 64;

/// Most creations and repairs that are executed on the agent's main thread, where they delay everything else, such as
/// heartbeats, by a few milliseconds.
const QUICK: usize = 4;

/// Reconciles the links of a network namespace.
pub struct Reconciler {
    pub(super) kinds: Kinds,
    pub(super) kernel: Arc<Mutex<Kernel>>,
    pub(super) watch: KernelWatch,
    pub(super) observed: Observed,
    pub(super) interest: Interest,
    pub(super) dirty: DirtySet,
    pub(super) cache: PlanCache,
    memos: Memos,
    /// The parts that must be read again.
    pub(super) stale: Parts,
    /// Notifications were lost since the links were last read.
    pub(super) may_have_missed: bool,
    /// The kinds that notifications concerned although no plan depends on them.
    pub(super) notified: BTreeSet<&'static str>,
    pub(super) resync_at: Instant,
    /// From when on the tables of other programs may be read again.
    pub(super) foreign_at: Instant,
    /// From when on all routes that plans depend on are looked up again.
    pub(super) look_up_at: Instant,
    retry: RetryPolicy,
    step_log: StepLog,
    refusal_log: StepLog,
    /// When a delay is over, and a pass is due.
    pub(super) retry_at: Option<Instant>,
    passes: TokenBucket,
    runtime: Arc<dyn Runtime>,
}

/// The result of a pass.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Of networks and NICs without remaining steps, except those for which nothing changed since the last pass.
    pub outcomes: Vec<ResourceOutcome>,
    /// Problems with devices that belong to no known network or NIC.
    pub notices: Vec<String>,
    /// Networks that were withdrawn in this pass, or are to be in the next.
    pub withdrawals: Withdrawals,
    /// Steps remain, so that another pass should follow.
    pub has_more: bool,
}

impl Reconciler {
    /// Returns a reconciler of this thread's network namespace.
    ///
    /// # Errors
    /// [`KernelError::Open`] if a netlink socket cannot be opened.
    pub fn new(kinds: Kinds, runtime: Arc<dyn Runtime>) -> Result<Self, KernelError> {
        let now = Instant::now();
        Ok(Self {
            kinds,
            kernel: Arc::new(Mutex::new(Kernel::open()?)),
            watch: KernelWatch::open()?,
            observed: Observed::default(),
            interest: Interest::default(),
            dirty: DirtySet::default(),
            cache: PlanCache::new(kinds),
            memos: Memos::default(),
            stale: Parts::ALL,
            may_have_missed: false,
            notified: BTreeSet::new(),
            resync_at: now + RESYNC,
            foreign_at: now,
            look_up_at: now,
            retry: RetryPolicy::default(),
            step_log: StepLog::new(now),
            refusal_log: StepLog::new(now),
            retry_at: None,
            passes: TokenBucket::new(now),
            runtime,
        })
    }

    /// Reads from this state folder which links the agent made forward IPv4, and records them there from now on.
    pub fn record_in(&mut self, state: &Path) {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner).record_in(state);
    }

    /// Waits until a pass may be due; [`Reconciler::is_due`] says whether it is.
    pub async fn wait(&mut self) {
        let due = self.retry_at.map_or(self.resync_at, |at| at.min(self.resync_at));
        let watch = &mut self.watch;
        let notification = async {
            if let Some(at) = self.passes.available_at() {
                tokio::time::sleep_until(at).await;
            }
            watch.readable().await;
        };
        tokio::select! {
            () = notification => self.passes.take(Instant::now()),
            () = tokio::time::sleep_until(due) => {}
        }
    }

    /// Applies the notifications that have arrived. Returns whether a pass is due.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let has_changes = self.drain();
        if now >= self.resync_at {
            self.stale = Parts::ALL;
        }
        let is_retry = self.retry_at.take_if(|at| now >= *at).is_some();
        has_changes || is_retry || self.stale.links
    }

    /// Makes a pass. `is_current` says whether all decisions are known.
    ///
    /// # Errors
    /// [`KernelError::Read`] if the observed state cannot be read. A step that fails is no error, but becomes the
    /// outcome of its resource.
    pub async fn pass(&mut self, desired: &Desired, is_current: bool) -> Result<Pass, KernelError> {
        self.interest = Interest::of(self.kinds, desired);
        self.is_due();
        self.refresh().await?;
        self.look_up(desired).await?;
        let mut plan = self.plan(desired, is_current, &[]);
        if !plan.steps.is_empty() {
            let Plan { steps, mut outcomes, mut warnings, withdrawals, .. } = plan;
            self.execute(batch(&steps), desired.cluster).await;
            self.drain();
            self.refresh().await?;
            // A change that was just made may have taken something away.
            self.look_up(desired).await?;
            plan = self.plan(desired, is_current, &steps);
            // The second plan replaces the first as far as it is about the same networks.
            outcomes.retain(|id, _| !self.cache.networks.contains(id));
            warnings.retain(|id, _| !self.cache.networks.contains(id));
            plan.outcomes.append(&mut outcomes);
            plan.warnings.append(&mut warnings);
            plan.withdrawals.extend(withdrawals);
        }
        let now = Instant::now();
        self.fail_contested(&mut plan, desired, now);
        let reread_at = (self.to_read() != Parts::NONE).then_some(now + REREAD);
        let foreign_at = (self.stale.foreign && self.interest.foreign).then(|| self.foreign_at.max(now + REREAD));
        self.retry_at = [self.retry.due(now), reread_at, foreign_at].into_iter().flatten().min();
        if plan.must_recheck {
            self.resync_at = self.resync_at.min(now + RESYNC_UNNOTIFIED);
        }
        Ok(finish(plan, desired))
    }

    /// Fails every netlink message after the next `messages`, to test what a killed process leaves.
    pub fn fail_after(&mut self, messages: usize) {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner).fail_after(messages);
    }

    /// Returns the devices with an alias of ours, of any cluster, with their names.
    ///
    /// # Errors
    /// [`KernelError::Read`] if the observed state cannot be read.
    pub async fn owned(&mut self) -> Result<Vec<(Owner, String)>, KernelError> {
        self.is_due();
        self.refresh().await?;
        let names = |owner| self.observed.owned(owner).map(move |link| (owner, link.name.clone()));
        Ok(self.observed.owners().flat_map(names).collect())
    }

    /// Makes the next pass return the outcomes of all resources, not only of those that may have changed.
    pub fn report_all(&mut self) {
        self.cache.invalidate();
    }

    /// Returns the observed state if a notification since the last call concerned this kind although no plan depends on
    /// it.
    pub fn notified(&mut self, kind: &str) -> Option<&Observed> {
        self.notified.remove(kind).then_some(&self.observed)
    }

    /// Changes the observed state by what did not come from the kernel's notifications. `apply` returns whether it
    /// changed anything; so does this.
    pub fn observe(&mut self, apply: impl FnOnce(&mut Observed) -> bool) -> bool {
        let is_changed = apply(&mut self.observed);
        self.dirty.others |= is_changed;
        is_changed
    }

    /// Plans what may have changed since the last plan, or everything. `previous` are the steps of the last plan.
    fn plan(&mut self, desired: &Desired, is_current: bool, previous: &[Step]) -> Plan {
        self.forget_decided(desired);
        let failures = self.retry.failures(previous, Instant::now());
        let key = CacheKey { cluster: desired.cluster, has_left: desired.has_left, is_current };
        let dirty = std::mem::take(&mut self.dirty);
        let only = self.cache.may_differ(desired, key, &dirty, &self.observed);
        let only = only.filter(|_| failures.is_empty());
        let inputs = PlanInputs::new(self.kinds, desired, &self.observed, &failures).current(is_current);
        let mut plan = plan_with(inputs, only.as_ref(), &mut self.memos);
        self.cache.update(desired, key, only, &mut plan);
        self.cache.is_complete &= failures.is_empty() && self.retry.contested(Instant::now()).next().is_none();
        plan
    }

    /// What was decided is no other program's change, however often it is.
    fn forget_decided(&mut self, desired: &Desired) {
        let decided = self.cache.decided(desired);
        decided.iter().for_each(|id| self.retry.decided(Subject::Network(*id)));
        if decided.is_empty() {
            return;
        }
        let is_on_one = |network| decided.contains(network);
        let nics = desired.nics.iter().filter(|(_, nic)| nic.tap.as_ref().is_some_and(|tap| is_on_one(&tap.network)));
        nics.for_each(|(id, _)| self.retry.decided(Subject::Nic(*id)));
    }

    /// A resource is not ready while another program keeps changing its devices, even if it is right just now.
    fn fail_contested(&self, plan: &mut Plan, desired: &Desired, now: Instant) {
        let contested: BTreeSet<_> = self.retry.contested(now).collect();
        if contested.is_empty() {
            return;
        }
        let fail = |outcome: &mut Outcome| {
            if *outcome == Outcome::Ready {
                *outcome = Outcome::Failed(UNDONE.to_owned());
            }
        };
        let is_contested = |id| contested.contains(&Subject::Network(id));
        for (id, outcome) in &mut plan.outcomes {
            if is_contested(*id) {
                fail(outcome);
            }
        }
        for (id, outcome) in &mut plan.nics {
            let network = desired.nics.get(id).and_then(|nic| Some(nic.tap.as_ref()?.network));
            if contested.contains(&Subject::Nic(*id)) || network.is_some_and(is_contested) {
                fail(outcome);
            }
        }
    }

    async fn execute(&mut self, steps: Vec<Step>, cluster: ClusterId) {
        if steps.is_empty() {
            return;
        }
        let now = Instant::now();
        for step in &steps {
            if let Some(left_out) = self.step_log.line(step.subject(), now) {
                tracing::info!(%step, left_out = (left_out > 0).then_some(left_out), "changing the node");
            }
        }
        let is_quick = steps.len() <= QUICK && steps.iter().all(Step::is_quick);
        let work = move |kernel: &mut Kernel| {
            let results = execute(kernel, &steps, cluster);
            Ok(steps.into_iter().zip(results).collect::<Vec<_>>())
        };
        let executed = if is_quick {
            work(&mut self.kernel.lock().unwrap_or_else(PoisonError::into_inner))
        } else {
            self.run_blocking(work).await
        };
        match executed {
            Ok(results) => {
                self.drain();
                let now = Instant::now();
                results.into_iter().for_each(|(step, result)| self.executed(&step, result, now));
            }
            Err(error) => tracing::error!(%error, "the steps were not executed"),
        }
    }

    fn executed(&mut self, step: &Step, result: Result<(), KernelError>, now: Instant) {
        self.stale = self.stale | step.invalidates();
        let Err(error) = result else {
            self.retry.succeeded(step, now);
            return;
        };
        // When a device is removed, the kernel first notifies that it is down, and a repair waits until it is removed.
        if step.changes().is_some_and(|index| self.observed.link(index).is_none()) {
            if let Some(left_out) = self.step_log.line(step.subject(), now) {
                let left_out = (left_out > 0).then_some(left_out);
                tracing::info!(%step, %error, left_out, "the device was removed meanwhile");
            }
            return;
        }
        if let Some(left_out) = self.refusal_log.line(step.subject(), now) {
            tracing::warn!(%step, %error, left_out = (left_out > 0).then_some(left_out), "the kernel refused");
        }
        self.retry.failed(step, error.to_string(), now);
        if step.creates().is_some_and(|name| self.observed.named(name).is_some()) {
            self.retry.clear(step.subject());
        } else {
            // The cause may be a change that the kernel did not notify of.
            self.stale = Parts::ALL;
        }
    }

    /// Runs `work` on another thread: a removal takes 30 ms, or longer while other programs hold the kernel's lock.
    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Kernel) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T, KernelError> {
        let kernel = Arc::clone(&self.kernel);
        let run = move || work(&mut kernel.lock().unwrap_or_else(PoisonError::into_inner));
        self.runtime.run_blocking("kernel", run).await.map_err(KernelError::Aborted)?
    }
}

/// Returns the steps of one pass: creations and repairs or, if there are none, the first removal.
fn batch(steps: &[Step]) -> Vec<Step> {
    let others: Vec<_> = steps.iter().take_while(|step| !step.is_removal()).take(BATCH).cloned().collect();
    if others.is_empty() { steps.iter().take(1).cloned().collect() } else { others }
}

fn finish(plan: Plan, desired: &Desired) -> Pass {
    let Plan { steps, outcomes, nics, mut warnings, withdrawals, notices, must_recheck: _ } = plan;
    let networks = outcomes.into_iter().filter_map(|(id, outcome)| {
        let generation = desired.networks.get(&id)?.generation;
        let warnings = warnings.remove(&id).unwrap_or_default();
        Some(ResourceOutcome { warnings, ..ResourceOutcome::new(ResourceRef::Network(id), generation, outcome) })
    });
    let mut outcomes: Vec<_> = networks.collect();
    outcomes.extend(nics.into_iter().filter_map(|(id, outcome)| {
        let generation = desired.nics.get(&id)?.generation;
        Some(ResourceOutcome::new(ResourceRef::Nic(id), generation, outcome))
    }));
    let withdrawals = withdrawals.into_iter().filter_map(|(id, reason)| {
        let generation = desired.networks.get(&id)?.generation;
        Some((id, Withdrawal { generation, reason }))
    });
    Pass { outcomes, notices, withdrawals: withdrawals.collect(), has_more: !steps.is_empty() }
}

//! What is reported of a machine. Pure.

use std::cell::Cell;
use std::time::Duration;

use otherix_image::fetch::Progress;
use otherix_schemas::id::VmId;
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::vm::{MachinePhase, MachineStatus, Power};
use otherix_vm::machine::VmStatus;
use otherix_vm::supervisor::{Cause, Phase};
use tokio::time::Instant;

/// What is reported of a VM's machine for a decision.
pub(super) fn of(id: VmId, generation: Position, outcome: Outcome, machine: MachineStatus) -> ResourceOutcome {
    let machine = Some(machine);
    ResourceOutcome { machine, ..ResourceOutcome::new(ResourceRef::Vm(id), generation, outcome) }
}

/// A machine without a process.
pub(super) fn at_rest(phase: MachinePhase) -> MachineStatus {
    MachineStatus { phase, started_at: None, last_line: None }
}

/// It cannot be run.
pub(super) fn failed(id: VmId, generation: Position, error: String) -> ResourceOutcome {
    of(id, generation, Outcome::Failed(error), at_rest(MachinePhase::Failed))
}

/// It waits for something.
pub(super) fn waits(id: VmId, generation: Position, phase: MachinePhase, what: String) -> ResourceOutcome {
    of(id, generation, Outcome::Pending(what), at_rest(phase))
}

/// The least time between two reports of one download.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes of a download of unknown size at which it is reported first; then at twice as many, and so on.
const FIRST_STEP: u64 = 16 << 20;

/// Which reports of a download are made: so few that each may be recorded. At each tenth of it at most, or each time
/// that it has doubled if its size is not known.
#[derive(Debug, Default)]
pub(super) struct FetchReports(Cell<Option<(u64, Instant)>>);

impl FetchReports {
    /// What is reported now, if anything is.
    pub(super) fn next(&self, progress: &Progress, now: Instant) -> Option<String> {
        self.is_due(progress, now).then(|| fetching(progress))
    }

    /// Whether something is reported now.
    pub(super) fn is_due(&self, progress: &Progress, now: Instant) -> bool {
        let step = match progress.total {
            Some(total) if total > 0 => progress.received.saturating_mul(10) / total,
            Some(_) | None => u64::from((progress.received / FIRST_STEP).checked_ilog2().map_or(0, |step| step + 1)),
        };
        let is_due = self.0.get().is_none_or(|(last, at)| step != last && now >= at + REPORT_INTERVAL);
        if is_due {
            self.0.set(Some((step, now)));
        }
        is_due
    }
}

/// How far the copy of a disk from another node is.
pub(super) fn copying(Progress { received, total, rate: _ }: &Progress) -> String {
    let total = total.unwrap_or(*received).div_ceil(1 << 20);
    format!("copying its disk, {} of {total} MiB", received >> 20)
}

/// How far the download of an image is.
fn fetching(Progress { received, total, rate }: &Progress) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let rate = if *rate > 0 { format!(", {} MiB/s", mib(*rate)) } else { String::new() };
    match total {
        Some(total) if *total > 0 => format!("fetching {} of {} MiB{rate}", received >> 20, mib(*total)),
        Some(_) | None => format!("fetching {} MiB{rate}", received >> 20),
    }
}

/// What is reported of a supervised machine that is to be `wanted`.
pub(super) fn supervised(
    id: VmId,
    generation: Position,
    wanted: Power,
    status: &VmStatus,
    began_at: Option<Timestamp>,
) -> ResourceOutcome {
    let VmStatus { phase, cause, last_line, .. } = status;
    let because = |text: &str| cause.as_ref().map_or_else(|| text.to_owned(), |cause| format!("{text}: {cause}"));
    let (phase, outcome) = match (phase, cause, wanted) {
        (Phase::Running, Some(Cause::Paused), Power::Paused) => (MachinePhase::Paused, Outcome::Ready),
        (Phase::Running, Some(Cause::Paused), Power::Running | Power::Stopped) => {
            (MachinePhase::Paused, Outcome::Pending("it is paused".to_owned()))
        }
        (Phase::Running, None, Power::Running) => (MachinePhase::Running, Outcome::Ready),
        (Phase::Running, None, Power::Paused) => (MachinePhase::Running, Outcome::Pending("it pauses".to_owned())),
        (Phase::Running, None, Power::Stopped) => (MachinePhase::Running, Outcome::Pending("it stops".to_owned())),
        (Phase::Running, Some(cause), _) => (MachinePhase::Running, Outcome::Pending(cause.to_string())),
        (Phase::Starting, _, _) => (MachinePhase::Starting, Outcome::Pending(because("starting"))),
        (Phase::Stopping, _, _) => (MachinePhase::Stopping, Outcome::Pending(because("shutting down"))),
        (Phase::Stopped, _, Power::Stopped) => (MachinePhase::Stopped, Outcome::Ready),
        // The guest did it: it is as its user wants it.
        (Phase::Stopped, Some(Cause::PoweredOff), Power::Running | Power::Paused) => {
            (MachinePhase::Stopped, Outcome::Ready)
        }
        (Phase::Stopped, _, Power::Running | Power::Paused) => {
            (MachinePhase::Stopped, Outcome::Pending(because("stopped")))
        }
        (Phase::Failed, cause, _) => {
            let text = cause.as_ref().map_or_else(|| "it cannot be started".to_owned(), ToString::to_string);
            (MachinePhase::Failed, Outcome::Failed(text))
        }
    };
    let runs = matches!(phase, MachinePhase::Running | MachinePhase::Paused | MachinePhase::Stopping);
    let (started_at, last_line) = (began_at.filter(|_| runs), last_line.clone().filter(|_| !runs));
    of(id, generation, outcome, MachineStatus { phase, started_at, last_line })
}

#[cfg(test)]
mod tests {
    use otherix_schemas::outcome::OutcomeStatus;
    use uuid::Uuid;

    use super::*;

    fn shown(phase: Phase, cause: Option<Cause>, wanted: Power) -> (MachinePhase, OutcomeStatus, Option<String>) {
        let last_line = Some("login:".to_owned());
        let status = VmStatus { request: 7, phase, cause, pid: Some(1), last_line };
        let began_at = Timestamp::from_unix_micros(5).ok();
        let id = VmId::new(Uuid::from_u128(1));
        let outcome = supervised(id, Position::new(7), wanted, &status, began_at);
        let machine = outcome.machine.unwrap();
        let runs = machine.started_at.is_some();
        assert_eq!(machine.last_line.is_some(), !runs, "a line of one that ended, and the time of one that runs");
        (machine.phase, outcome.outcome.status(), outcome.outcome.error().map(str::to_owned))
    }

    #[test]
    fn ready_is_what_does_what_it_is_to_do() {
        use OutcomeStatus::{Failed, Pending, Ready};
        let status = |phase, cause, wanted| shown(phase, cause, wanted).1;
        assert_eq!(status(Phase::Running, None, Power::Running), Ready);
        assert_eq!(status(Phase::Running, Some(Cause::Paused), Power::Paused), Ready);
        assert_eq!(status(Phase::Stopped, None, Power::Stopped), Ready);
        assert_eq!(status(Phase::Stopped, Some(Cause::PoweredOff), Power::Running), Ready);
        for (phase, cause, wanted) in [
            (Phase::Starting, None, Power::Running),
            (Phase::Running, None, Power::Paused),
            (Phase::Running, None, Power::Stopped),
            (Phase::Running, Some(Cause::Paused), Power::Running),
            (Phase::Running, Some(Cause::DiskError), Power::Running),
            (Phase::Stopping, None, Power::Stopped),
            (Phase::Stopped, None, Power::Running),
        ] {
            assert_eq!(status(phase, cause.clone(), wanted), Pending, "{phase:?} {cause:?} {wanted:?}");
        }
        assert_eq!(status(Phase::Failed, None, Power::Running), Failed);
    }

    #[test]
    fn the_error_says_why() {
        let given_up = Cause::GivenUp { failures: 6, last: Box::new(Cause::Panicked) };
        let text = "failed 6 times in a row, the last time: the guest's kernel has panicked";
        assert_eq!(shown(Phase::Failed, Some(given_up), Power::Running).2.unwrap(), text);
        let crashed = Cause::Crashed { last_words: None };
        assert_eq!(shown(Phase::Starting, Some(crashed), Power::Running).2.unwrap(), "starting: QEMU has ended");
    }

    #[test]
    fn progress_is_bytes_and_rate() {
        let at = |received: u64, total: Option<u64>, rate| {
            fetching(&Progress { received: received << 20, total: total.map(|total| total << 20), rate })
        };
        assert_eq!(at(120, Some(440), 85 << 20), "fetching 120 of 440 MiB, 85 MiB/s");
        assert_eq!(at(0, Some(440), 0), "fetching 0 of 440 MiB");
        assert_eq!(
            (at(5, None, 1).as_str(), at(0, Some(0), 0).as_str()),
            ("fetching 5 MiB, 1 MiB/s", "fetching 0 MiB")
        );
    }

    #[test]
    fn few_reports_are_made_of_a_download() {
        let count = |total: Option<u64>, seconds: u64| {
            let (reports, start) = (FetchReports::default(), Instant::now());
            let quarters = 0..=seconds * 4;
            let reported = quarters.filter(|quarter| {
                let received = (1 << 30) * quarter / (seconds * 4);
                let at = start + Duration::from_millis(quarter * 250);
                reports.next(&Progress { received, total, rate: 1 }, at).is_some()
            });
            reported.count()
        };
        assert_eq!(count(Some(1 << 30), 600), 11);
        assert_eq!(count(Some(1 << 30), 6), 4, "one in two seconds");
        assert_eq!(count(None, 600), 8, "0, 16, 32, … 1024 MiB");
    }
}

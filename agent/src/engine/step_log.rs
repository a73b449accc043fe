//! Limits how often steps are logged: another program that changes a device again and again must not fill the log.
//!
//! Of each subject the first [`BURST`] lines are logged, then one every [`INTERVAL`], until nothing was logged or left
//! out for that long. All subjects together have [`TOTAL_BURST`] lines, then one every [`TOTAL_INTERVAL`]. A line says
//! how many were left out before it. Reads no clock: the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::subject::Subject;

const BURST: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);

const TOTAL_BURST: u32 = 5_000;
const TOTAL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Lines {
    logged: u32,
    logged_at: Instant,
    last_at: Instant,
    left_out: u64,
}

/// The lines that were logged of each subject, and left out.
#[derive(Debug)]
pub(super) struct StepLog {
    subjects: BTreeMap<Subject, Lines>,
    /// When the next line would be due at one line per interval.
    due: Instant,
    swept_at: Instant,
}

impl StepLog {
    pub(super) fn new(now: Instant) -> Self {
        Self { subjects: BTreeMap::new(), due: now, swept_at: now }
    }

    /// Counts a line about a subject. If it is to be logged, returns how many were left out before it.
    pub(super) fn line(&mut self, subject: Subject, now: Instant) -> Option<u64> {
        if now.duration_since(self.swept_at) >= INTERVAL {
            self.swept_at = now;
            self.subjects.retain(|_, lines| now.duration_since(lines.last_at) < INTERVAL);
        }
        let new = || Lines { logged: 0, logged_at: now, last_at: now, left_out: 0 };
        let lines = self.subjects.entry(subject).or_insert_with(new);
        lines.last_at = now;
        let is_due = lines.logged < BURST || now.duration_since(lines.logged_at) >= INTERVAL;
        let is_in_total = self.due.checked_sub(TOTAL_INTERVAL * TOTAL_BURST).is_none_or(|at| at <= now);
        if !is_due || !is_in_total {
            lines.left_out += 1;
            return None;
        }
        self.due = self.due.max(now) + TOTAL_INTERVAL;
        lines.logged = lines.logged.saturating_add(1);
        lines.logged_at = now;
        Some(std::mem::take(&mut lines.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_a_burst_and_then_a_line_every_ten_seconds() {
        let begin = Instant::now();
        let mut log = StepLog::new(begin);
        let mut logged = Vec::new();
        // Twenty lines a second, for a minute.
        for number in 0..1200u32 {
            let line = log.line(Subject::Device(1), begin + Duration::from_millis(50) * number);
            logged.extend(line.map(|left_out| (number, left_out)));
        }
        let expected =
            [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (204, 199), (404, 199), (604, 199), (804, 199), (1004, 199)];
        assert_eq!(logged, expected);
        assert_eq!(log.line(Subject::Device(2), begin + Duration::from_secs(60)), Some(0), "another subject");
        assert_eq!(log.line(Subject::Device(1), begin + Duration::from_secs(80)), Some(0), "it was quiet meanwhile");
        assert_eq!(log.subjects.len(), 1);
    }

    #[test]
    fn all_subjects_together_are_limited() {
        let begin = Instant::now();
        let mut log = StepLog::new(begin);
        let logged = (0..20_000).filter(|number| log.line(Subject::Device(*number), begin).is_some()).count();
        assert_eq!(u32::try_from(logged).unwrap(), TOTAL_BURST + 1);
        assert_eq!(log.line(Subject::Device(20_000), begin + TOTAL_INTERVAL), Some(0));
    }
}

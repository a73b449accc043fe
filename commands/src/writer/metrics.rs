//! What the writer tells of its work.

use std::time::Duration;

use otherix_observe::prometheus::metrics::counter::Counter;
use otherix_observe::prometheus::metrics::histogram::Histogram;
use otherix_observe::prometheus::registry::{Registry, Unit};
use otherix_observe::{durations, observe, sizes};

/// Counts and times of commands and batches. Clones share them.
#[derive(Clone, Debug)]
pub struct WriterMetrics {
    commands: Histogram,
    batches: Histogram,
    events: Counter,
    stored: Histogram,
    failed: Counter,
}

impl Default for WriterMetrics {
    fn default() -> Self {
        Self {
            commands: durations(),
            batches: sizes(),
            events: Counter::default(),
            stored: durations(),
            failed: Counter::default(),
        }
    }
}

impl WriterMetrics {
    /// Lists them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        let Self { commands, batches, events, stored, failed } = self.clone();
        let help = "Time from a command's arrival at the writer until its answer is durable";
        registry.register_with_unit("otherix_writer_command", help, Unit::Seconds, commands);
        registry.register("otherix_writer_batch_commands", "Commands that were made durable together", batches);
        registry.register("otherix_writer_events", "Events that were stored", events);
        let help = "Time that the journal takes to make a batch durable";
        registry.register_with_unit("otherix_writer_store", help, Unit::Seconds, stored);
        registry.register("otherix_writer_failed_batches", "Batches that the journal did not store", failed);
    }

    /// A batch was settled: its events, the time that storing it took, and how long each of its commands took.
    pub(super) fn settled(
        &self,
        events: usize,
        stored: Option<Duration>,
        commands: impl ExactSizeIterator<Item = Duration>,
    ) {
        self.batches.observe(f64::from(u32::try_from(commands.len()).unwrap_or(u32::MAX)));
        self.events.inc_by(events as u64);
        if let Some(stored) = stored {
            observe(&self.stored, stored);
        }
        commands.for_each(|command| observe(&self.commands, command));
    }

    pub(super) fn failed(&self) {
        self.failed.inc();
    }
}

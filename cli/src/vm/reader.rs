//! Reads the console of a VM piece by piece.

use std::time::Duration;

use otherix_schemas::id::VmId;
use otherix_schemas::request::Request;
use otherix_schemas::vm::{ConsoleCursor, ConsoleOutput, ConsoleRead, ReadConsole, VmView};
use otherix_transport::Connection;
use otherix_transport::request::{CallError, CallOptions};

use crate::failure::Failure;
use crate::resource::not_found_hint;

/// How long the control plane may take for an answer, beside what it is asked to wait.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a request waits for output. The shorter, the sooner a node that is gone is noticed.
pub(super) const WAIT_MS: u32 = 5_000;

/// Where a client is in the log of a console.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) id: VmId,
    after: Option<ConsoleCursor>,
    tail: Option<u32>,
}

impl Reader {
    /// Begins `tail` bytes before the end, or with all that is kept.
    pub(super) fn new(connection: Connection, id: VmId, tail: Option<u32>) -> Self {
        Self { connection, id, after: None, tail }
    }

    /// Asks for output, and waits for it. Nothing is skipped, however often it fails.
    pub(super) async fn ask(&self, wait_ms: u32) -> Result<ConsoleOutput, CallError> {
        let Self { connection, id, after, tail } = self;
        let read = ConsoleRead { id: *id, after: after.clone(), tail: *tail, wait_ms };
        let timeout = Duration::from_millis(wait_ms.into()) + ANSWER_TIMEOUT;
        let options = CallOptions { timeout, idempotency_key: None };
        Ok(connection.call::<ReadConsole>(&read, options).await?.data)
    }

    /// Goes on after this output.
    pub(super) fn advance(&mut self, output: &ConsoleOutput) {
        self.after = Some(output.next.clone());
    }
}

/// Why a console cannot be read.
pub(super) fn failure(error: CallError) -> Failure {
    not_found_hint::<VmView>(Failure::call(error, Request::of::<ReadConsole>()))
}

/// What is shown where output is missing.
pub(super) const GAP: &str = "[otherix: some output is missing: it was not kept long enough]";

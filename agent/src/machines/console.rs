//! The console of one VM: its log, and the session of whoever types. Both outlast the VM's processes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::node::ConsoleGrant;
use otherix_schemas::value::UserId;
use otherix_schemas::vm::{
    CONSOLE_OUTPUT_MAX, CONSOLE_SESSION_MS, CONSOLE_WAIT_MAX_MS, ConsoleBytes, ConsoleClosing, ConsoleCursor,
    ConsoleInput, ConsoleOutput, ConsoleRead, ConsoleSession, ConsoleTyped, MachinePhase,
};
use otherix_vm::console::{Console, ConsoleLog, LogPiece, LogPosition};
use otherix_vm::folder::VmFolder;
use tokio::time::Instant;

use super::session::{Sessions, Typing};

/// The first and the longest pause before the log is looked at again. QEMU gives what the guest writes to the relay
/// before it writes it to the log.
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(250);

/// How long a guest may take for what is typed before the client is told to send it again.
const TYPE_TIMEOUT: Duration = Duration::from_millis(500);

/// A VM's console.
#[derive(Debug)]
pub(crate) struct VmConsole {
    pub(super) log: Arc<ConsoleLog>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// While the VM is supervised.
    relay: Option<Arc<Console>>,
    phase: MachinePhase,
    sessions: Sessions,
}

impl VmConsole {
    pub(super) fn new(folder: &VmFolder) -> Self {
        let state = State { relay: None, phase: MachinePhase::Pending, sessions: Sessions::default() };
        Self { log: Arc::new(ConsoleLog::new(folder)), state: Mutex::new(state) }
    }

    pub(super) fn set_relay(&self, relay: Option<Arc<Console>>) {
        self.state().relay = relay;
    }

    pub(super) fn set_phase(&self, phase: MachinePhase) {
        self.state().phase = phase;
    }

    /// Returns output, as soon as there is some, or none at the end of the wait.
    pub(crate) async fn read(&self, read: ConsoleRead) -> Result<ConsoleOutput, ErrorBody> {
        let ConsoleRead { id: _, after, tail, wait_ms } = read;
        let malformed = |error| ErrorBody::new(ErrorCode::ValidationFailed, format!("`after` {error}"));
        let after = after.map(|after| after.as_str().parse::<LogPosition>()).transpose().map_err(malformed)?;
        let deadline = Instant::now() + Duration::from_millis(wait_ms.min(CONSOLE_WAIT_MAX_MS).into());
        let mut activity = self.log.activity();
        let mut pause = LOOK_MIN;
        let phase_before = self.state().phase;
        loop {
            activity.mark_unchanged();
            let piece = self.log.read(after, tail.map(u64::from), CONSOLE_OUTPUT_MAX);
            let piece = piece.map_err(|error| {
                ErrorBody::new(ErrorCode::Unavailable, format!("the log of the console cannot be read: {error}"))
            })?;
            let phase = self.state().phase;
            let is_answer = !piece.data.is_empty() || piece.is_gap || phase != phase_before || after.is_none();
            if is_answer || Instant::now() >= deadline {
                return output(piece, phase);
            }
            let look_at = (Instant::now() + pause).min(deadline);
            pause = (pause * 2).min(LOOK_MAX);
            tokio::select! {
                changed = activity.changed() => if changed.is_ok() { pause = LOOK_MIN },
                () = tokio::time::sleep_until(look_at) => {}
            }
        }
    }

    /// Gives the input to a session.
    pub(crate) fn open(&self, grant: ConsoleGrant) -> Result<ConsoleSession, ErrorBody> {
        let session = grant.session;
        self.state().sessions.open(grant, Instant::now())?;
        Ok(ConsoleSession { session, lasts_ms: CONSOLE_SESSION_MS })
    }

    /// Types what was not typed before.
    pub(crate) async fn write(&self, holder: &UserId, input: ConsoleInput) -> Result<ConsoleTyped, ErrorBody> {
        let ConsoleInput { id: _, session, offset, data } = input;
        let (relay, Typing { typed, skip }) = {
            let mut state = self.state();
            let typing = state.sessions.keep((session, holder), offset, Instant::now())?;
            // What is typed while the VM has no process would be dropped.
            let takes_input = matches!(state.phase, MachinePhase::Running | MachinePhase::Stopping);
            (state.relay.clone().filter(|_| takes_input), typing)
        };
        let rest = data.0.get(skip..).unwrap_or_default();
        let mut typed = typed;
        // Another request of the session types at this moment: the client sends it again.
        if let Some(input) = relay.as_ref().filter(|_| !rest.is_empty()).and_then(|relay| relay.write().ok()) {
            // What is typed is one piece: all of it, or nothing.
            if let Ok(Ok(())) = tokio::time::timeout(TYPE_TIMEOUT, input.type_bytes(rest)).await {
                typed = self.state().sessions.typed((session, holder), rest.len()).unwrap_or(typed);
            }
        }
        Ok(ConsoleTyped { typed, phase: self.state().phase })
    }

    /// Ends a session, if it is this user's.
    pub(crate) fn close(&self, holder: &UserId, session: &ConsoleClosing) {
        self.state().sessions.close((session.session, holder));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn output(piece: LogPiece, phase: MachinePhase) -> Result<ConsoleOutput, ErrorBody> {
    let LogPiece { data, next, is_gap, has_more } = piece;
    let next = ConsoleCursor::try_from(next.to_string());
    let next = next.map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))?;
    Ok(ConsoleOutput { data: ConsoleBytes(data), next, is_gap, has_more, phase })
}

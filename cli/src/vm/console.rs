//! `otherix vm console`: what the guest writes goes to stdout, what is typed goes to the guest.
//!
//! The client asks for output, and waits for it; so it goes on where it was after whatever was away, and a client that
//! is slow delays nobody. Input is sent with its offset, so that it may be sent again and is typed once.

use std::future::pending;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use futures::future::BoxFuture;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::VmId;
use otherix_schemas::request::Request;
use otherix_schemas::vm::{
    CONSOLE_INPUT_MAX, CloseConsole, ConsoleBytes, ConsoleClosing, ConsoleInput, ConsoleOpening, ConsoleOutput,
    ConsoleTyped, MachinePhase, OpenConsole, VmView, WriteConsole,
};
use otherix_transport::Connection;
use otherix_transport::request::{CallError, CallOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::reader::{ANSWER_TIMEOUT, GAP, Reader, WAIT_MS, failure};
use super::terminal::{self, EscapeKey, RawTerminal};
use crate::client::{ControlPlaneClient, GlobalArgs, is_transient};
use crate::duration;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;
use crate::resource::NameOrId;

pub(super) const HELP: &str = "\
What the guest writes to its serial console is shown, from the last 4 KiB on, and what is typed is sent to it; Ctrl-] \
ends. One user types at a time, others use --read-only; --take-over ends another's session. The console stays while \
the VM is stopped, restarts, or its node or the control plane is away. That somebody has begun to type is recorded; \
what is typed is not.

A serial line does not tell the guest how large the terminal is: run `resize` in the guest, or `stty rows 50 cols 160`.

If stdin is no terminal, it is sent to the guest as it is, and the command ends once all of it was typed and the guest \
has written nothing for --linger.

Examples:
  otherix vm console web-1
  otherix vm console web-1 --read-only
  otherix vm console web-1 --escape ^a
  printf 'uname -a\\n' | otherix vm console web-1 --timeout 30s";

/// How much of the log is shown first, in bytes.
const TAIL: u32 = 4096;

/// Between attempts.
const PAUSE: Duration = Duration::from_millis(300);

/// Between requests that keep the session.
const KEEP: Duration = Duration::from_secs(5);

/// Input that waits for the guest, in bytes: no more is read from stdin then.
const PENDING_MAX: usize = 64 << 10;

#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    /// Show the console, and type nothing
    #[arg(long)]
    read_only: bool,

    /// End the session of another user who types at the console
    #[arg(long, conflicts_with = "read_only")]
    take_over: bool,

    /// The key that ends the console: a control key such as ^], a character, or none
    #[arg(long, value_name = "KEY", default_value = "^]", value_parser = terminal::parse_escape)]
    escape: EscapeKey,

    /// End after this time, with exit code 124
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,

    /// Without a terminal: how long the guest must have written nothing, after the end of stdin
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    linger: Duration,
}

/// Carries out the command.
pub(crate) async fn run(global: &GlobalArgs, args: ConsoleArgs, printer: &mut Printer) -> Result<(), Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let vm: VmView = NameOrId::new(&args.reference).look_up_live(&mut client).await?;
    let connection = client.lasting().await?;
    let writer = match args.read_only {
        true => None,
        false => Some(Writer::open(&connection, vm.id, args.take_over).await?),
    };
    let reader = Reader::new(connection, vm.id, Some(TAIL));
    let is_terminal = std::io::stdin().is_terminal();
    if is_terminal {
        printer.note(&format!("console of VM {}; {}", clean(vm.name.as_str()), args.escape.describe()));
    }
    let signals = Signals::new().map_err(|error| terminal_failure(&error))?;
    let raw = RawTerminal::begin().map_err(|error| terminal_failure(&error))?;
    let input = (is_terminal || writer.is_some()).then(terminal::input);
    let ends_at = args.timeout.map(|timeout| Instant::now() + timeout);
    let (escape, linger) = (args.escape, args.linger);
    let mut session = Session {
        reader,
        writer,
        input,
        escape,
        linger,
        is_terminal,
        ends_at,
        quiet_at: None,
        phase: None,
        lost: false,
    };
    let ended = session.run(signals, printer).await;
    drop(raw);
    if is_terminal {
        printer.note("");
    }
    if let Some(writer) = &session.writer {
        writer.close().await;
    }
    ended
}

fn terminal_failure(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot use the terminal: {error}"))
}

/// The signals that end a console. By themselves they would leave the terminal raw.
struct Signals([Signal; 4]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let kinds = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit());
        Ok(Self([signal(kinds.0)?, signal(kinds.1)?, signal(kinds.2)?, signal(kinds.3)?]))
    }

    async fn received(&mut self) {
        let Self([interrupt, terminate, hangup, quit]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// A console that is used.
struct Session {
    reader: Reader,
    /// `None` if nothing is typed.
    writer: Option<Writer>,
    /// `None` once stdin has ended.
    input: Option<mpsc::Receiver<Vec<u8>>>,
    escape: EscapeKey,
    linger: Duration,
    is_terminal: bool,
    ends_at: Option<Instant>,
    /// When the console ends unless the guest writes something.
    quiet_at: Option<Instant>,
    /// What the VM did last.
    phase: Option<MachinePhase>,
    /// Nothing answers, and that was said.
    lost: bool,
}

type PendingOutput = BoxFuture<'static, Result<ConsoleOutput, CallError>>;
type Writing = BoxFuture<'static, Result<ConsoleTyped, CallError>>;

/// What ends, if it does.
type Step = Result<ControlFlow<()>, Failure>;

impl Session {
    async fn run(&mut self, mut signals: Signals, printer: &mut Printer) -> Result<(), Failure> {
        let mut reading = self.read(Duration::ZERO);
        let mut writing: Option<Writing> = None;
        loop {
            if writing.is_none()
                && let Some(writer) = &self.writer
            {
                writing = writer.write();
            }
            let keep_at = self.writer.as_ref().map(|writer| writer.sent_at + KEEP).filter(|_| writing.is_none());
            let takes_input = self.writer.as_ref().is_none_or(|writer| writer.pending.len() < PENDING_MAX);
            let step = tokio::select! {
                output = &mut reading => {
                    let step = self.received(&output, printer);
                    let pause = if output.is_ok() { Duration::ZERO } else { PAUSE };
                    reading = self.read(pause);
                    step
                }
                typed = optional(&mut writing) => {
                    writing = None;
                    self.typed(typed, printer).await
                }
                piece = receive(&mut self.input), if takes_input => self.input(piece),
                () = until(keep_at) => {
                    writing = self.writer.as_mut().map(|writer| writer.keep());
                    Ok(ControlFlow::Continue(()))
                }
                () = until(self.quiet_at) => Ok(ControlFlow::Break(())),
                () = until(self.ends_at) => {
                    let text = "the time is over: --timeout";
                    Err(Failure::new(Exit::TimedOut, ErrorCode::Unavailable, text))
                }
                () = signals.received() => Ok(ControlFlow::Break(())),
            };
            if step?.is_break() {
                return Ok(());
            }
        }
    }

    fn read(&self, pause: Duration) -> PendingOutput {
        let reader = self.reader.clone();
        Box::pin(async move {
            sleep(pause).await;
            reader.ask(WAIT_MS).await
        })
    }

    fn received(&mut self, output: &Result<ConsoleOutput, CallError>, printer: &mut Printer) -> Step {
        match output {
            Ok(output) => {
                self.answered(printer);
                if output.is_gap {
                    self.note(GAP, printer);
                }
                self.reader.advance(output);
                let step = printer.bytes(&output.data.0)?;
                if !output.data.0.is_empty() {
                    self.quiet_at = self.quiet_at.map(|_| Instant::now() + self.linger);
                }
                self.shows(output.phase, printer);
                Ok(step)
            }
            Err(error) if is_transient(error) => {
                self.unanswered(error, printer);
                Ok(ControlFlow::Continue(()))
            }
            Err(CallError::Refused(body)) => Err(failure(CallError::Refused(body.clone()))),
            Err(error) => Err(Failure::new(Exit::Unexpected, ErrorCode::Internal, error.to_string())),
        }
    }

    async fn typed(&mut self, typed: Result<ConsoleTyped, CallError>, printer: &mut Printer) -> Step {
        let Some(writer) = &mut self.writer else { return Ok(ControlFlow::Continue(())) };
        match typed {
            Ok(ConsoleTyped { typed, phase }) => {
                let is_dropped = self.is_terminal && phase != MachinePhase::Running;
                writer.accepted(typed, is_dropped);
                if self.input.is_none() && writer.pending.is_empty() && self.quiet_at.is_none() {
                    self.quiet_at = Some(Instant::now() + self.linger);
                }
                self.answered(printer);
                self.shows(phase, printer);
                Ok(ControlFlow::Continue(()))
            }
            Err(CallError::Refused(body)) if body.error.details.contains_key("session") => {
                // It may have been the node's agent that was restarted; whoever has taken over is named.
                let opened = Writer::open(&writer.connection, writer.id, false).await?;
                let pending = std::mem::take(&mut writer.pending);
                *writer = Writer { pending, ..opened };
                Ok(ControlFlow::Continue(()))
            }
            Err(error) if is_transient(&error) => {
                writer.retry_at = Instant::now() + PAUSE;
                self.unanswered(&error, printer);
                Ok(ControlFlow::Continue(()))
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// What was typed; `None` at the end of stdin.
    fn input(&mut self, piece: Option<Vec<u8>>) -> Step {
        let Some(piece) = piece else {
            self.input = None;
            if self.is_terminal {
                return Ok(ControlFlow::Break(()));
            }
            if self.writer.as_ref().is_none_or(|writer| writer.pending.is_empty()) {
                self.quiet_at = Some(Instant::now() + self.linger);
            }
            return Ok(ControlFlow::Continue(()));
        };
        let Some(writer) = &mut self.writer else {
            // Nothing is typed: what ends other programs ends this one, too.
            let is_end = self.escape.is_in(&piece) || piece.iter().any(|byte| matches!(byte, 3 | 4));
            return Ok(if is_end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        };
        if self.is_terminal && self.escape.is_in(&piece) {
            return Ok(ControlFlow::Break(()));
        }
        writer.pending.extend(piece);
        Ok(ControlFlow::Continue(()))
    }

    fn shows(&mut self, phase: MachinePhase, printer: &mut Printer) {
        let before = self.phase.replace(phase);
        if before == Some(phase) || (before.is_none() && phase == MachinePhase::Running) {
            return;
        }
        let text = if phase == MachinePhase::Running {
            "[otherix: the VM runs]".to_owned()
        } else {
            format!("[otherix: the VM is {}; waiting for it]", phase.as_str())
        };
        self.note(&text, printer);
    }

    fn answered(&mut self, printer: &mut Printer) {
        if std::mem::replace(&mut self.lost, false) {
            self.note("[otherix: the console answers again]", printer);
        }
    }

    fn unanswered(&mut self, error: &CallError, printer: &mut Printer) {
        if !std::mem::replace(&mut self.lost, true) {
            self.note(&format!("[otherix: {error}; still waiting]"), printer);
        }
    }

    fn note(&self, text: &str, printer: &mut Printer) {
        if self.is_terminal { printer.raw_note(text) } else { printer.note(text) }
    }
}

/// The input of the console.
struct Writer {
    connection: Connection,
    id: VmId,
    session: Uuid,
    /// Bytes that were typed.
    offset: u64,
    /// Bytes that are to be typed.
    pending: Vec<u8>,
    /// When something is sent again.
    retry_at: Instant,
    sent_at: Instant,
}

impl Writer {
    async fn open(connection: &Connection, id: VmId, take_over: bool) -> Result<Self, Failure> {
        let deadline = Instant::now() + ANSWER_TIMEOUT * 2;
        loop {
            let options = CallOptions { timeout: ANSWER_TIMEOUT, idempotency_key: None };
            match connection.call::<OpenConsole>(&ConsoleOpening { id, take_over }, options).await {
                Ok(answer) => {
                    let (now, session) = (Instant::now(), answer.data.session);
                    let (connection, pending) = (connection.clone(), Vec::new());
                    return Ok(Self { connection, id, session, offset: 0, pending, retry_at: now, sent_at: now });
                }
                Err(error) if is_transient(&error) && Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
                Err(error) => return Err(Failure::call(error, Request::of::<OpenConsole>())),
            }
        }
    }

    /// Sends what is to be typed, if there is something.
    fn write(&self) -> Option<Writing> {
        if self.pending.is_empty() { None } else { Some(self.send(self.retry_at)) }
    }

    /// Sends nothing but that the session goes on.
    fn keep(&mut self) -> Writing {
        self.sent_at = Instant::now();
        self.send(self.sent_at)
    }

    fn send(&self, at: Instant) -> Writing {
        let (connection, id, session, offset) = (self.connection.clone(), self.id, self.session, self.offset);
        let data = self.pending.get(..CONSOLE_INPUT_MAX).unwrap_or(&self.pending);
        let input = ConsoleInput { id, session, offset, data: ConsoleBytes(data.to_vec()) };
        Box::pin(async move {
            sleep_until(at).await;
            let options = CallOptions { timeout: ANSWER_TIMEOUT, idempotency_key: None };
            Ok(connection.call::<WriteConsole>(&input, options).await?.data)
        })
    }

    /// So many bytes of the session were typed. What was not is sent again, or dropped.
    fn accepted(&mut self, typed: u64, is_dropped: bool) {
        let now = Instant::now();
        self.sent_at = now;
        let done = usize::try_from(typed.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        self.offset = self.offset.max(typed);
        self.pending.drain(..done.min(self.pending.len()));
        if done > 0 {
            self.retry_at = now;
        } else if is_dropped {
            self.pending.clear();
        } else if !self.pending.is_empty() {
            self.retry_at = now + PAUSE;
        }
    }

    /// Ends the session. If that fails, it ends by itself.
    async fn close(&self) {
        let closing = ConsoleClosing { id: self.id, session: self.session };
        let options = CallOptions { timeout: Duration::from_secs(1), idempotency_key: None };
        let _or_by_itself = self.connection.call::<CloseConsole>(&closing, options).await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

async fn optional(writing: &mut Option<Writing>) -> Result<ConsoleTyped, CallError> {
    match writing {
        Some(writing) => writing.await,
        None => pending().await,
    }
}

async fn receive(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => pending().await,
    }
}

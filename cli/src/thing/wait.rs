//! Waiting for the nodes: the thing is looked at when an outcome comes by, and every second in case one went unheard. A
//! control plane that is away meanwhile is waited for as well.
//!
//! Cancel-safety: nothing is changed here; a wait may be dropped at any await.

use std::time::Duration;

use otherix_schemas::subject;
use otherix_transport::transport::Subscription;
use tokio::time::{Instant, timeout_at};

use super::Made;
use super::verdict::{self, Progress, Verdict};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;

/// How long an outcome that went unheard may go unnoticed.
const LOOK: Duration = Duration::from_secs(1);

/// Ears for outcomes. Made before the request whose outcomes are waited for.
pub(super) struct Waiting {
    outcomes: Option<Subscription>,
}

impl Waiting {
    pub(super) async fn new(client: &mut Client) -> Result<Self, Failure> {
        Ok(Self { outcomes: Some(client.listen(subject::live(subject::OUTCOMES)).await?) })
    }

    /// Returns when there may be something new. All that was heard is one reason to look.
    async fn something(&mut self, deadline: Instant) {
        let next = async {
            match &mut self.outcomes {
                Some(outcomes) => outcomes.next().await,
                None => std::future::pending().await,
            }
        };
        let look = deadline.min(Instant::now() + LOOK);
        if let Ok(None) = timeout_at(look, next).await {
            self.outcomes = None; // the connection is lost
        }
        while self.outcomes.as_mut().and_then(Subscription::try_next).is_some() {}
    }
}

/// What a look says, given the thing as it was seen last, and as it is now unless it is not found any more.
type Judge<T> = fn(&T, Option<&T>) -> Verdict;

/// Waits until it is ready. Gives the thing as it was seen last, and how it ended.
pub(super) async fn until_ready<T: Made>(
    client: Client,
    waiting: Waiting,
    created: T,
    how: (Duration, &mut Printer),
) -> (T, Result<(), Failure>) {
    watch(client, waiting, created, how, verdict::readiness).await
}

/// Waits until every node has confirmed the removal: it is then not found any more.
pub(super) async fn until_gone<T: Made>(
    client: Client,
    waiting: Waiting,
    deleted: T,
    how: (Duration, &mut Printer),
) -> (T, Result<(), Failure>) {
    watch(client, waiting, deleted, how, verdict::removal).await
}

async fn watch<T: Made>(
    client: Client,
    waiting: Waiting,
    last: T,
    (timeout, printer): (Duration, &mut Printer),
    judge: Judge<T>,
) -> (T, Result<(), Failure>) {
    let (last, result) = look_again(client, waiting, last, (timeout, printer), judge).await;
    printer.end_progress();
    if let Some(note) = last.left_out().filter(|_| result.is_ok() && !printer.is_json()) {
        printer.note(&note);
    }
    (last, result)
}

async fn look_again<T: Made>(
    mut client: Client,
    mut waiting: Waiting,
    mut last: T,
    (timeout, printer): (Duration, &mut Printer),
    judge: Judge<T>,
) -> (T, Result<(), Failure>) {
    let deadline = Instant::now() + timeout;
    let mut said = Progress { done: 0, of: 0, words: String::new() };
    let mut seen_at_all = false;
    loop {
        let progress = match look(&mut client, &last, deadline).await {
            Look::Seen(now) => {
                let verdict = judge(&last, now.as_ref());
                if let Some(view) = now {
                    seen_at_all = true;
                    last = view;
                }
                match verdict {
                    Verdict::Done => return (last, Ok(())),
                    Verdict::Failed(failure) => return (last, Err(failure)),
                    Verdict::NotYet(progress) => progress,
                }
            }
            Look::Refused(failure) => return (last, Err(failure)),
            Look::Blind(why) => Progress { words: format!("{why}; waiting goes on"), ..said },
        };
        if Instant::now() >= deadline {
            let words = if seen_at_all { None } else { Some(progress.words.as_str()) };
            let failure = verdict::timed_out(&last, words, timeout);
            return (last, Err(failure));
        }
        if progress.words != said.words {
            printer.progress(progress.done, progress.of, &progress.words);
        }
        said = progress;
        if waiting.outcomes.is_none() {
            client.renew_until(deadline);
            waiting.outcomes = Waiting::new(&mut client).await.ok().and_then(|new| new.outcomes);
        }
        waiting.something(deadline).await;
    }
}

/// What a look gives.
enum Look<T> {
    /// The thing, or the news that it is not found.
    Seen(Option<T>),
    /// The control plane could not be asked.
    Blind(String),
    /// The control plane says no.
    Refused(Failure),
}

async fn look<T: Made>(client: &mut Client, thing: &T, deadline: Instant) -> Look<T> {
    client.renew_until(deadline);
    match client.call::<_, T>(T::GET, &T::by_id(thing.id())).await {
        Ok(answer) => Look::Seen(Some(answer.data)),
        Err(failure) => match failure.exit {
            Exit::NotFound => Look::Seen(None),
            Exit::Unreachable => Look::Blind(failure.body.error.message),
            Exit::Done
            | Exit::Unexpected
            | Exit::Usage
            | Exit::Conflict
            | Exit::Blocked
            | Exit::Denied
            | Exit::NodeFailed
            | Exit::TimedOut => Look::Refused(failure),
        },
    }
}

//! A task for each guest, which answers it while its tap exists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use otherix_runtime::{LogLimit, Runtime, Task};
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::Guest;
use crate::filter::{self, RECEIVED_MAX};
use crate::socket::TapSocket;

/// How many frames of a guest are read in how much time; what is more waits, and is lost when the socket's buffer is
/// full. A guest that sends as much as it can costs the node this much.
const FRAMES: u32 = 20;
const WINDOW: Duration = Duration::from_millis(100);

/// How long a socket rests after an error, such as that its device is down.
const REST: Duration = Duration::from_millis(100);

/// Answers the guests of a node.
#[derive(Debug)]
pub struct Responder {
    runtime: Arc<dyn Runtime>,
    /// By the name of the tap.
    answered: BTreeMap<String, AnsweredGuest>,
}

#[derive(Debug)]
struct AnsweredGuest {
    guest: Guest,
    /// The index of its tap.
    index: u32,
    task: Task<()>,
}

impl Drop for AnsweredGuest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Responder {
    /// Returns a responder for no guests.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, answered: BTreeMap::new() }
    }

    /// Answers these guests, by the names of their taps, and no others. To be called again when a tap may have been
    /// created: one that does not exist is left out. Changes nothing for guests that are answered already.
    pub fn set(&mut self, guests: &BTreeMap<String, Guest>) {
        self.answered.retain(|tap, _| guests.contains_key(tap));
        for (tap, guest) in guests {
            let Ok(index) = if_nametoindex(tap.as_str()) else {
                self.answered.remove(tap);
                continue;
            };
            if self.answered.get(tap).is_some_and(|answered| answered.guest == *guest && answered.index == index) {
                continue;
            }
            self.answered.remove(tap);
            match TapSocket::open(index, &filter::program(guest)) {
                Ok(socket) => {
                    let task = self.runtime.spawn("responder", serve(socket, *guest));
                    self.answered.insert(tap.clone(), AnsweredGuest { guest: *guest, index, task });
                }
                Err(error) => {
                    static FAILED: LogLimit = LogLimit::new();
                    if let Some(hits) = FAILED.hit() {
                        tracing::error!(tap, %error, hits, "cannot answer the DHCP of a guest");
                    }
                }
            }
        }
    }

    /// Returns how many guests are answered.
    pub fn count(&self) -> usize {
        self.answered.len()
    }
}

async fn serve(socket: TapSocket, guest: Guest) {
    let mut buffer = vec![0; usize::try_from(RECEIVED_MAX).unwrap_or_default()];
    let (mut begin, mut frames) = (Instant::now(), 0);
    loop {
        let Ok(length) = socket.receive(&mut buffer).await else {
            sleep(REST).await;
            continue;
        };
        if let Some(answer) = buffer.get(..length).and_then(|frame| guest.answer(frame)) {
            // One that is lost is asked for again.
            let _sent = socket.send(&answer);
        }
        frames += 1;
        if begin.elapsed() >= WINDOW {
            (begin, frames) = (Instant::now(), 0);
        } else if frames >= FRAMES {
            sleep_until(begin + WINDOW).await;
            (begin, frames) = (Instant::now(), 0);
        }
    }
}

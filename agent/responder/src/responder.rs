//! Tasks for each guest, which answer it while its tap exists, and for each gateway that answers over TCP.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use otherix_runtime::{LogLimit, Runtime, TaskSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::Guest;
use crate::dns::client::Client;
use crate::dns::udp::Asking;
use crate::dns::{self, Gateway, Limits};
use crate::filter::{self, RECEIVED_MAX};
use crate::socket::{DHCP_BUFFER, DNS_BUFFER, TapSocket};

/// How many frames of a guest are read in how much time, apart from questions about names; what is more waits, and is
/// lost when the socket's buffer is full. A guest that sends as much as it can costs the node this much.
const FRAMES: u32 = 20;
const WINDOW: Duration = Duration::from_millis(100);

/// How long a socket rests after an error, such as that its device is down.
const REST: Duration = Duration::from_millis(100);

/// Answers the guests of a node.
#[derive(Debug)]
pub struct Responder {
    runtime: Arc<dyn Runtime>,
    limits: Limits,
    /// By the name of the tap.
    guests: BTreeMap<String, Answered<Guest>>,
    /// By the name of the bridge.
    gateways: BTreeMap<String, Answered<Gateway>>,
}

/// What is answered, as long as this is kept.
#[derive(Debug)]
struct Answered<T> {
    what: T,
    /// The index of its device.
    index: u32,
    _tasks: TaskSet<()>,
}

impl Responder {
    /// Returns a responder for no guests.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self::with_limits(runtime, Limits::default())
    }

    /// Returns a responder for no guests, whose guests may ask for as many names.
    pub fn with_limits(runtime: Arc<dyn Runtime>, limits: Limits) -> Self {
        Self { runtime, limits, guests: BTreeMap::new(), gateways: BTreeMap::new() }
    }

    /// Answers these guests, by the names of their taps, and no others. To be called again when a tap may have been
    /// created: one that does not exist is left out. Changes nothing for guests that are answered already.
    pub fn set(&mut self, guests: &BTreeMap<String, Guest>) {
        let (runtime, limits) = (&self.runtime, self.limits);
        update(&mut self.guests, guests, |tap, index, guest| {
            let tasks = answer(runtime, limits, index, guest);
            if let Err(error) = &tasks {
                static FAILED: LogLimit = LogLimit::new();
                if let Some(hits) = FAILED.hit() {
                    tracing::error!(tap, %error, hits, "cannot answer the DHCP and DNS of a guest");
                }
            }
            tasks.ok()
        });
    }

    /// Answers questions about names over TCP at these gateways, by the names of their bridges, and no others. As
    /// [`Responder::set`].
    pub fn set_gateways(&mut self, gateways: &BTreeMap<String, Gateway>) {
        let runtime = &self.runtime;
        update(&mut self.gateways, gateways, |bridge, _, gateway| {
            let mut tasks = TaskSet::default();
            let served = dns::tcp::serve(Arc::clone(runtime), bridge.to_owned(), gateway.clone());
            tasks.add(runtime.spawn("names over TCP", served));
            Some(tasks)
        });
    }

    /// Returns how many guests are answered.
    pub fn count(&self) -> usize {
        self.guests.len()
    }
}

/// Ends what is not wanted any more or changed, and begins what is new, if its device exists.
fn update<T: Clone + PartialEq>(
    answered: &mut BTreeMap<String, Answered<T>>,
    wanted: &BTreeMap<String, T>,
    mut begin: impl FnMut(&str, u32, &T) -> Option<TaskSet<()>>,
) {
    answered.retain(|name, _| wanted.contains_key(name));
    for (name, what) in wanted {
        let Ok(index) = if_nametoindex(name.as_str()) else {
            answered.remove(name);
            continue;
        };
        if answered.get(name).is_some_and(|answered| answered.what == *what && answered.index == index) {
            continue;
        }
        answered.remove(name);
        if let Some(tasks) = begin(name, index, what) {
            answered.insert(name.clone(), Answered { what: what.clone(), index, _tasks: tasks });
        }
    }
}

/// Begins to answer a guest, whose tap has this index.
fn answer(runtime: &Arc<dyn Runtime>, limits: Limits, index: u32, guest: &Guest) -> io::Result<TaskSet<()>> {
    let mut tasks = TaskSet::default();
    let socket = TapSocket::open(index, &filter::program(guest), DHCP_BUFFER)?;
    tasks.add(runtime.spawn("responder", serve(socket, guest.clone())));
    if let Some(names) = &guest.names {
        let socket = TapSocket::open(index, &filter::dns_program(guest), DNS_BUFFER)?;
        let (client, zone) = (Arc::new(Client::new(limits)), Arc::clone(&names.zone));
        zone.add_client(guest.lease.address, Arc::clone(&client));
        let asking = Asking { runtime: Arc::clone(runtime), guest: guest.clone(), zone, client };
        tasks.add(runtime.spawn("names", dns::udp::serve(socket, asking)));
    }
    Ok(tasks)
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

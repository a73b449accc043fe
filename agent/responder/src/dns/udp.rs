//! Questions over UDP, on the tap of the guest.

use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::Runtime;
use tokio::time::sleep;

use super::client::Client;
use super::message::{Query, Rcode};
use super::relay::{Relay, Relayed, Transport};
use super::zone::{Decision, Zone};
use crate::answer::Guest;
use crate::filter::RECEIVED_MAX;
use crate::frame::{Addresses, DNS, Datagram, HEADERS, udp};
use crate::socket::TapSocket;

/// How many questions of a guest are answered before others get their turn.
const TURN: u32 = 16;

/// The shortest pause of a guest that asks too much: timers have milliseconds.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a socket rests after an error, such as that its device is down.
const REST: Duration = Duration::from_millis(100);

/// A guest whose questions are answered.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) guest: Guest,
    pub(crate) zone: Arc<Zone>,
    pub(crate) client: Arc<Client>,
}

/// The guest is answered as long as this is kept.
impl Drop for Asking {
    fn drop(&mut self) {
        self.zone.remove_client(self.guest.lease.address, &self.client);
    }
}

/// Answers the guest.
pub(crate) async fn serve(socket: TapSocket, asking: Asking) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; usize::try_from(RECEIVED_MAX).unwrap_or_default()];
    let mut answered = 0;
    loop {
        let Ok(length) = socket.receive(&mut buffer).await else {
            sleep(REST).await;
            continue;
        };
        if let Some(datagram) = buffer.get(..length).and_then(|frame| asking.datagram(frame)) {
            asking.answer(&socket, &datagram);
        }
        let wait = asking.client.count();
        if !wait.is_zero() {
            sleep(wait.max(PAUSE)).await;
        }
        answered += 1;
        if answered % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Asking {
    /// Returns the datagram in a frame, if it is a question of the guest for its gateway.
    fn datagram<'a>(&self, frame: &'a [u8]) -> Option<Datagram<'a>> {
        let Guest { mac, lease, gateway_mac, .. } = &self.guest;
        let datagram = Datagram::parse(frame, *gateway_mac, *mac)?;
        let is_question = datagram.from.0 == lease.address && datagram.to == (lease.server, DNS);
        (is_question && datagram.from.1 != 0).then_some(datagram)
    }

    fn answer(&self, socket: &Arc<TapSocket>, datagram: &Datagram<'_>) {
        match self.zone.decide(datagram.payload) {
            Decision::Ignore => {}
            Decision::Answer(answer) => self.path(datagram).send(socket, &answer),
            Decision::Relay(query, relay) => self.relay(socket, self.path(datagram), &query, relay),
        }
    }

    /// Relays a question. One too many is not answered: the guest asks again, later.
    fn relay(&self, socket: &Arc<TapSocket>, path: Path, query: &Query<'_>, relay: Arc<Relay>) {
        let Some(permit) = relay.permit(&self.client) else { return };
        let (message, question) = (query.bytes().to_vec(), query.question().to_vec());
        let most = query.size().min(usize::from(self.guest.lease.mtu).saturating_sub(HEADERS));
        let (truncated, failed) = (query.truncated(), query.error(Rcode::ServFail));
        let socket = Arc::clone(socket);
        // It ends by itself, within seconds.
        drop(self.runtime.spawn("relay a question", async move {
            let _permit = permit;
            let answer = relay.ask(&Relayed { message, question }, Transport::Udp).await;
            let answer = answer.unwrap_or(failed);
            path.send(&socket, if answer.len() <= most { &answer } else { &truncated });
        }));
    }

    fn path(&self, datagram: &Datagram<'_>) -> Path {
        let Guest { mac, lease, gateway_mac, .. } = &self.guest;
        let addresses = Addresses { from: (*gateway_mac, lease.server), to: (*mac, lease.address) };
        Path { addresses, port: datagram.from.1 }
    }
}

/// Where an answer is sent.
#[derive(Clone, Copy, Debug)]
struct Path {
    addresses: Addresses,
    port: u16,
}

impl Path {
    fn send(self, socket: &TapSocket, answer: &[u8]) {
        // One that is lost is asked for again.
        let _sent = socket.send(&udp(self.addresses, (DNS, self.port), answer));
    }
}

//! Asks the node's resolvers what a network does not know.
//!
//! Each question has a socket of its own, so a port of its own, and an id of its own: who wants to answer in place of
//! the resolver has to guess both. The kernel receives only what comes from the resolver's address and port.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use otherix_runtime::{LogLimit, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::client::{Client, Share, Used};
use super::message;
use super::upstreams::Upstreams;

/// How long a resolver may take, and how often one is asked. Clients wait for five seconds and more.
const ANSWER: Duration = Duration::from_millis(1_500);
const ATTEMPTS: usize = 3;

/// The most questions that are relayed at a time, each with a socket, and the most of one guest. A guest gets no more
/// than this part of what is free, so however many flood, some is left for those that do not.
const RELAYED: usize = 1_024;
const RELAYED_OF_ONE: usize = 64;
const PART: usize = 8;

/// Codes of answers after which another resolver is asked: SERVFAIL, NOTIMP and REFUSED, as the C library does.
const FAILURES: [u8; 3] = [2, 4, 5];

/// The longest answer that is received over UDP, in bytes. No guest can receive a longer one.
const RECEIVED_MAX: usize = 9_216;

/// How a guest asks, and so how the resolvers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Asks the node's resolvers. One for all networks.
#[derive(Debug)]
pub struct Relay {
    runtime: Arc<dyn Runtime>,
    upstreams: Upstreams,
    /// The place of the resolver that answered last.
    preferred: AtomicUsize,
    relayed: Share,
}

/// The permission to relay a question.
#[derive(Debug)]
pub(crate) struct Permit(#[expect(dead_code, reason = "used until it is dropped")] [Used; 2]);

/// A question to relay.
#[derive(Clone, Debug)]
pub(crate) struct Relayed {
    /// The message as the guest has sent it.
    pub(crate) message: Vec<u8>,
    /// The question in it.
    pub(crate) question: Vec<u8>,
}

impl Relay {
    /// Returns a relay to these resolvers.
    pub fn new(runtime: Arc<dyn Runtime>, upstreams: Upstreams) -> Self {
        Self { runtime, upstreams, preferred: AtomicUsize::new(0), relayed: Share::default() }
    }

    /// Permits a guest to have a question relayed, unless too many are.
    pub(crate) fn permit(&self, client: &Client) -> Option<Permit> {
        let free = RELAYED.saturating_sub(self.relayed.used());
        let of_guest = client.relayed.take(RELAYED_OF_ONE.min(free / PART))?;
        Some(Permit([of_guest, self.relayed.take(RELAYED)?]))
    }

    /// Asks the resolvers, one after the other. `None` if none answers in time.
    pub(crate) async fn ask(&self, relayed: &Relayed, transport: Transport) -> Option<Vec<u8>> {
        let resolvers = self.upstreams.current();
        if resolvers.is_empty() {
            static NONE: LogLimit = LogLimit::new();
            if let Some(hits) = NONE.hit() {
                tracing::warn!(
                    hits,
                    hint = "add one to /etc/resolv.conf, or start the agent with --dns-upstream",
                    "this node has no resolver: guests resolve only the names of their networks"
                );
            }
            return None;
        }
        let first = self.preferred.load(Ordering::Relaxed) % resolvers.len();
        let attempts = (0..resolvers.len()).cycle().skip(first).take(ATTEMPTS.min(resolvers.len() + 1));
        let mut failure = None;
        for place in attempts {
            let Some(resolver) = resolvers.get(place) else { continue };
            let asked = async {
                match transport {
                    Transport::Udp => self.ask_by_udp(*resolver, relayed).await,
                    Transport::Tcp => self.ask_by_tcp(*resolver, relayed).await,
                }
            };
            match timeout(ANSWER, asked).await {
                Ok(Ok(answer)) if FAILURES.contains(&message::rcode(&answer)) => failure = Some(answer),
                Ok(Ok(answer)) => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return Some(answer);
                }
                Ok(Err(error)) => log_unanswered(*resolver, &error.to_string()),
                Err(_) => log_unanswered(*resolver, "no answer in time"),
            }
        }
        failure
    }

    async fn ask_by_udp(&self, resolver: SocketAddr, relayed: &Relayed) -> std::io::Result<Vec<u8>> {
        let local: SocketAddr = match resolver {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        // The kernel chooses the port at random.
        let socket = UdpSocket::bind(local).await?;
        socket.connect(resolver).await?;
        let id = self.id();
        let mut asked = relayed.message.clone();
        message::set_id(&mut asked, id);
        socket.send(&asked).await?;
        let mut buffer = vec![0; RECEIVED_MAX];
        loop {
            let length = socket.recv(&mut buffer).await?;
            buffer.truncate(length);
            if message::answers(&buffer, id, &relayed.question) {
                message::set_id(&mut buffer, message::id(&relayed.message));
                return Ok(buffer);
            }
            buffer.resize(RECEIVED_MAX, 0);
        }
    }

    async fn ask_by_tcp(&self, resolver: SocketAddr, relayed: &Relayed) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(resolver).await?;
        let id = self.id();
        let length = u16::try_from(relayed.message.len()).map_err(std::io::Error::other)?;
        let mut asked = length.to_be_bytes().to_vec();
        asked.extend(&relayed.message);
        message::set_id(asked.get_mut(2..).unwrap_or_default(), id);
        stream.write_all(&asked).await?;
        let mut answer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut answer).await?;
        if !message::answers(&answer, id, &relayed.question) {
            return Err(std::io::Error::other("it answered another question"));
        }
        message::set_id(&mut answer, message::id(&relayed.message));
        Ok(answer)
    }

    fn id(&self) -> [u8; 2] {
        let mut id = [0; 2];
        self.runtime.fill_random(&mut id);
        id
    }
}

fn log_unanswered(resolver: SocketAddr, reason: &str) {
    static UNANSWERED: LogLimit = LogLimit::new();
    if let Some(hits) = UNANSWERED.hit() {
        // Perhaps only those of one domain, which a guest may choose.
        tracing::info!(%resolver, reason, hits, "a resolver of this node did not answer a guest's question");
    }
}

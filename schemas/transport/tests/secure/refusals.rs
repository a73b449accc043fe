//! A server that refuses: how often it is tried, and what the log says.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use otherix_testkit::nats::NatsServer;
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

const DEADLINE: Duration = Duration::from_secs(20);

/// How long attempts are counted.
const WATCHED: Duration = Duration::from_secs(4);

/// Log lines of at least level `info`.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if *event.metadata().level() <= Level::INFO {
            let mut text = Text(event.metadata().level().to_string());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

impl Lines {
    /// Collects what this thread logs.
    fn collect(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    fn get(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A server that says `answer` after each CONNECT, and closes the connection. Returns its URL and a count.
fn refusing(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            client.write_all(b"INFO {\"max_payload\":1048576}\r\n").unwrap();
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            let _ended = lines.find(|line| line.as_ref().is_ok_and(|line| line == "PING"));
            let _closed = client.write_all(answer.as_bytes());
        }
    });
    (url, count)
}

fn endpoint(url: &str) -> NatsEndpoint {
    NatsEndpoint::new(url, Credentials::password("ann".parse().unwrap(), "secret"))
}

#[tokio::test]
async fn a_server_that_refuses_the_user_is_tried_less_and_less_often() {
    let lines = Lines::default();
    let _guard = lines.collect();
    let (url, count) = refusing("-ERR 'Authorization Violation'\r\n");
    let _nats = Nats::lasting(&endpoint(&url), "test").await.unwrap();
    wait_for(DEADLINE, "an attempt", async || (count.load(Ordering::SeqCst) > 0).then_some(()).ok_or(0)).await;
    tokio::time::sleep(WATCHED).await;
    let attempts = count.load(Ordering::SeqCst);
    // Pauses of at least 125, 250, 500, 1000 and 2000 ms.
    assert!((2..=6).contains(&attempts), "{attempts} attempts in {WATCHED:?}");
    let lines = lines.get();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("ERROR") && lines[0].contains("the user is unknown"), "{lines:#?}");
}

#[tokio::test]
async fn a_server_that_accepts_and_closes_is_not_stormed_either() {
    let (url, count) = refusing("PONG\r\n");
    let _nats = Nats::lasting(&endpoint(&url), "test").await.unwrap();
    wait_for(DEADLINE, "an attempt", async || (count.load(Ordering::SeqCst) > 0).then_some(()).ok_or(0)).await;
    tokio::time::sleep(WATCHED).await;
    let attempts = count.load(Ordering::SeqCst);
    assert!((2..=6).contains(&attempts), "{attempts} attempts in {WATCHED:?}");
}

#[tokio::test]
async fn the_log_has_a_line_for_each_change() {
    let lines = Lines::default();
    let _guard = lines.collect();
    let mut server = NatsServer::start();
    let nats = Nats::lasting(&endpoint(&server.url()), "test").await.unwrap();
    let mut connects = nats.connects();
    for lost in 0..2 {
        tokio::time::timeout(DEADLINE, connects.wait_for(|count| *count > lost)).await.unwrap().unwrap();
        server.kill9();
        // Many attempts fail meanwhile.
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.restart();
    }
    tokio::time::timeout(DEADLINE, connects.wait_for(|count| *count > 2)).await.unwrap().unwrap();
    let levels: Vec<String> =
        lines.get().iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(levels, ["WARN", "INFO", "WARN", "INFO"], "{:#?}", lines.get());
}

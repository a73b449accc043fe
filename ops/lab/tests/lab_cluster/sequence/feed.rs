//! The events, as an independent client reads them from the stream: from the first one, then each as it arrives.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use otherix_testkit::python::{interpreter, modules};
use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use super::model::Cluster;
use crate::lab::{DEADLINE, Lab};

/// Prints each event of the stream as it is stored, one a line.
const FOLLOWER: &str = r#"
import asyncio, ssl, sys
import creds, nats

async def main(url, credentials, ca):
    client = await nats.connect(url, tls=ssl.create_default_context(cafile=ca), **creds.options(credentials))
    # What is live says that something new is stored.
    live = await client.subscribe("live.otherix.>")
    await client.flush()
    last = 0
    while True:
        async for message in creds.stored(client, last + 1):
            last = int(message.headers["Nats-Sequence"])
            print(message.data.decode(), flush=True)
        try:
            await live.next_msg(timeout=0.2)
        except nats.errors.TimeoutError:
            pass

asyncio.run(main(*sys.argv[1:]))
"#;

/// A client that follows the stream, and the state that its events imply.
pub(super) struct StreamFollower {
    client: Child,
    events: Receiver<Value>,
    cluster: Cluster,
}

impl StreamFollower {
    pub(super) fn start(lab: &Lab) -> Self {
        let exports = lab.exports();
        let mut client = Command::new(interpreter())
            .args(["-c", FOLLOWER])
            .env("PYTHONPATH", modules())
            .args(["OTHERIX_NATS_URL", "OTHERIX_CREDENTIALS", "OTHERIX_CA"].map(|name| &exports[name]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`make setup` creates the Python environment");
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        // Ends when the client ends or the receiver is dropped.
        thread::spawn(move || {
            let events = lines.map_while(Result::ok).map(|line| serde_json::from_str(&line).unwrap());
            for event in events {
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        Self { client, events, cluster: Cluster::default() }
    }

    /// The state that the events received so far imply.
    pub(super) fn cluster(&mut self) -> &Cluster {
        for event in self.events.try_iter() {
            self.cluster.apply(&event);
        }
        &self.cluster
    }

    /// The state that all events in the journal imply; waits until they have been received.
    pub(super) fn current_cluster(&mut self, lab: &Lab) -> &Cluster {
        let head = lab.journal("SELECT MAX(position) FROM events")[0].parse::<u64>().unwrap();
        wait_for_blocking(DEADLINE, "the stream to have all events of the journal", || {
            self.cluster().position() >= head
        });
        &self.cluster
    }
}

impl Drop for StreamFollower {
    fn drop(&mut self) {
        self.client.kill().unwrap();
        self.client.wait().unwrap();
    }
}

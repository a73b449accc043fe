//! The events, as an independent client reads them from the stream: from the first one, then each as it arrives.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use otherix_testkit::python::interpreter;
use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use super::model::Cluster;
use crate::lab::{DEADLINE, Lab};

/// Prints each event of the stream as it is stored, one a line.
const FOLLOWER: &str = r#"
import asyncio, json, sys
import nats

async def main(url, credentials):
    user = json.load(open(credentials))
    client = await nats.connect(url, user=user["user"], password=user["password"])
    events = await client.jetstream().subscribe("otherix.>", stream="OTHERIX_EVENTS", ordered_consumer=True)
    async for message in events.messages:
        print(message.data.decode(), flush=True)

asyncio.run(main(*sys.argv[1:]))
"#;

/// A client that follows the stream, and what its events make.
pub(super) struct Feed {
    client: Child,
    events: Receiver<Value>,
    cluster: Cluster,
}

impl Feed {
    pub(super) fn of(lab: &Lab) -> Self {
        let exports = lab.exports();
        let mut client = Command::new(interpreter())
            .args(["-c", FOLLOWER, &exports["OTHERIX_NATS_URL"], &exports["OTHERIX_CREDENTIALS"]])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`make setup` makes the Python environment");
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        // Ends with the client, or with who listens.
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

    /// What the events make that have come by now.
    pub(super) fn cluster(&mut self) -> &Cluster {
        for event in self.events.try_iter() {
            self.cluster.fold(&event);
        }
        &self.cluster
    }

    /// What the events make, all of those that are decided by now among them.
    pub(super) fn cluster_of_now(&mut self, lab: &Lab) -> &Cluster {
        let head = lab.journal("SELECT MAX(position) FROM events")[0].parse::<u64>().unwrap();
        wait_for_blocking(DEADLINE, "the stream to bring what is decided", || self.cluster().position() >= head);
        &self.cluster
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.client.kill().unwrap();
        self.client.wait().unwrap();
    }
}

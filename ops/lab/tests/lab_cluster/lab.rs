//! A lab of real programs for one test, and access to it with independent tools. Removed on drop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use otherix_testkit::lab_name::lab_name;
use serde_json::Value;

/// Time-out of waits, far above their expected duration.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Prints sequence, content type and body (in hex) of every event, up to the one at `last`: as a plain reader of
/// the stream (`stream`), or as a plain subscriber to the live subjects (`live`), which creates the file `marker`
/// when it has subscribed.
const READER: &str = r#"
import asyncio, pathlib, ssl, sys
import creds, nats

async def main(url, credentials, ca, kind, last, marker=None):
    client = await nats.connect(url, tls=ssl.create_default_context(cafile=ca), **creds.options(credentials))
    if kind == "live":
        events = await client.subscribe("live.otherix.>")
        await client.flush()
        pathlib.Path(marker).touch()
    sequence, end = 0, asyncio.get_running_loop().time() + 20
    while sequence < int(last):
        assert asyncio.get_running_loop().time() < end, f"only {sequence} of {last}"
        if kind == "live":
            messages = [await events.next_msg(timeout=20)]
        else:
            messages = [message async for message in creds.stored(client, sequence + 1)]
        for message in messages:
            sequence = int(message.headers["Nats-Sequence"])
            print(sequence, message.headers["Content-Type"], message.data.hex())
    await client.close()

asyncio.run(main(*sys.argv[1:]))
"#;

pub(crate) struct Lab {
    pub(crate) name: String,
}

impl Lab {
    pub(crate) fn up(test: &str, nodes: u32) -> Self {
        let lab = Self { name: lab_name(test) };
        lab.lab(&["up", "--nodes", &nodes.to_string()]);
        lab
    }

    fn command(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_otherix-lab")).args(["--lab", &self.name]).args(args).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn lab(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(output.status.success(), "otherix-lab {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether a command of the lab succeeds.
    pub(crate) fn succeeds(&self, args: &[&str]) -> bool {
        self.command(args).status.success()
    }

    pub(crate) fn exports(&self) -> BTreeMap<String, String> {
        let value = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        self.lab(&["env"]).lines().filter_map(value).collect()
    }

    pub(crate) fn otherix(&self, args: &[&str]) -> Output {
        self.otherix_command(args).output().expect("`otherix` is built beside `otherix-lab`")
    }

    /// The command line client, as the administrator.
    pub(crate) fn otherix_command(&self, args: &[&str]) -> Command {
        let exports = self.exports();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix");
        let mut command = Command::new(program);
        for name in ["OTHERIX_NATS_URL", "OTHERIX_CREDENTIALS", "OTHERIX_CA"] {
            command.env(name, &exports[name]);
        }
        command.args(args);
        command
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> Value {
        let output = self.otherix(&[args, &["-o", "json"]].concat());
        assert!(output.status.success(), "otherix {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A node's links, as `ip` reports them.
    pub(crate) fn links(&self, node: u32) -> Vec<Value> {
        serde_json::from_str(&self.lab(&["exec", &format!("node-{node}"), "--", "ip", "-d", "-j", "link"])).unwrap()
    }

    /// A node's links that otherix created for networks and NICs, without the mesh device.
    pub(crate) fn managed_links(&self, node: u32) -> Vec<Value> {
        let is_managed = |alias: &str| alias.starts_with("otherix:") && alias != "otherix:mesh";
        self.links(node).into_iter().filter(|link| link["ifalias"].as_str().is_some_and(is_managed)).collect()
    }

    /// A node's link of this name.
    pub(crate) fn link(&self, node: u32, name: &str) -> Option<Value> {
        self.links(node).into_iter().find(|link| link["ifname"] == name)
    }

    /// The folder of the lab's files.
    pub(crate) fn folder(&self) -> PathBuf {
        Path::new("/var/lib/otherix-lab").join(&self.name)
    }

    pub(crate) fn journal(&self, query: &str) -> Vec<String> {
        let path = self.folder().join("otherixd/journal.db");
        let output = Command::new("sqlite3").arg("-readonly").arg(path).arg(query).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The journal's positions and events from `first` on.
    pub(crate) fn events(&self, first: usize) -> Vec<String> {
        self.journal(&format!(
            "SELECT position, lower(hex(body)) FROM events WHERE position >= {first} ORDER BY position"
        ))
    }

    /// Asserts that the stream, read by an independent client, equals the journal: sequences are positions, and events
    /// are identical byte for byte.
    pub(crate) fn assert_stream_is_journal(&self) {
        let journal = self.events(1);
        assert_eq!(self.read(&["stream", &journal.len().to_string()]), journal);
    }

    /// The events that an independent client reads.
    pub(crate) fn read(&self, args: &[&str]) -> Vec<String> {
        let exports = self.exports();
        let own = ["OTHERIX_NATS_URL", "OTHERIX_CREDENTIALS", "OTHERIX_CA"].map(|name| exports[name].as_str());
        let args = [&own, args].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let output = runtime.block_on(otherix_testkit::python::nats_py(READER, &args));
        let event = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            assert_eq!(fields[1], "application/cloudevents+json");
            format!("{}|{}", fields[0], fields[2])
        };
        output.lines().map(event).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = Command::new(env!("CARGO_BIN_EXE_otherix-lab")).args(["--lab", &self.name, "down"]).output();
        assert!(
            thread::panicking() || down.is_ok_and(|down| down.status.success()),
            "the lab is not removed completely"
        );
    }
}

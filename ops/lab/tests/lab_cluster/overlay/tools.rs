//! Programs in the namespaces of a lab, for the duration of a test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use otherix_testkit::python::interpreter;
use otherix_testkit::wait::wait_for_blocking;
use otherix_testkit::{TempDir, tempdir};
use serde_json::Value;

use crate::lab::{DEADLINE, Lab};

const PINGER: &str = include_str!("pinger.py");
const GUEST_PROGRAM: &str = include_str!("guest.py");

/// A program in a namespace, killed on drop.
pub(super) struct RunningProgram(Child);

impl RunningProgram {
    /// Starts it; its standard output is piped.
    pub(super) fn start(namespace: &str, program: &[&str]) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).args(program).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn python(namespace: &str, script: &str, arguments: &[&str]) -> Self {
        let interpreter = interpreter();
        Self::start(namespace, &[&[interpreter.to_str().unwrap(), "-c", script], arguments].concat())
    }

    pub(super) fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().unwrap())
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Lab {
    /// Runs a Python script in a namespace of the lab, and returns its output.
    #[track_caller]
    pub(super) fn python(&self, namespace: &str, script: &str, arguments: &[&str]) -> String {
        let interpreter = interpreter();
        let program = [interpreter.to_str().unwrap(), "-c", script];
        self.lab(&[&["exec", namespace, "--"], &program[..], arguments].concat())
    }

    /// Starts the server of a guest; it replies with the guest's name.
    pub(super) fn serve(&self, guest: &str) -> RunningProgram {
        let mut server =
            RunningProgram::python(&self.namespace(&format!("vm:{guest}")), GUEST_PROGRAM, &["serve", guest]);
        let mut line = String::new();
        server.stdout().read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        server
    }

    /// Transfers this many bytes in each direction, verifies them, and returns the name of the server.
    #[track_caller]
    pub(super) fn exchange(&self, guest: &str, address: &str, bytes: u32) -> String {
        self.python(&format!("vm:{guest}"), GUEST_PROGRAM, &["call", address, &bytes.to_string()]).trim().to_owned()
    }

    /// Sends a text in a UDP datagram from a guest.
    pub(super) fn send(&self, guest: &str, address: &str, text: &str) {
        self.python(&format!("vm:{guest}"), GUEST_PROGRAM, &["send", address, text]);
    }

    pub(super) fn ping(&self, guest: &str, arguments: &[&str]) -> bool {
        self.succeeds(&[&["exec", &format!("vm:{guest}"), "--", "ping", "-c1", "-W1"], arguments].concat())
    }
}

/// Results of pings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pings {
    pub(super) sent: u64,
    pub(super) lost: u64,
    /// Longest time between replies.
    pub(super) gap_ms: u64,
}

/// Pings from one guest to another, every 5 ms.
pub(super) struct Pinger {
    name: String,
    requests: ChildStdin,
    responses: BufReader<ChildStdout>,
    _program: RunningProgram,
}

impl Pinger {
    /// Starts it, and returns when the first replies have arrived.
    pub(super) fn start(lab: &Lab, guest: &str, address: &str) -> Self {
        let mut program = RunningProgram::python(&lab.namespace(&format!("vm:{guest}")), PINGER, &[address]);
        let requests = program.0.stdin.take().unwrap();
        let name = format!("{guest} to {address}");
        let mut pinger = Self { name, requests, responses: program.stdout(), _program: program };
        wait_for_blocking(DEADLINE, &format!("pings of {}", pinger.name), || {
            let pings = pinger.results_since_last_call();
            pings.sent > 0 && pings.lost == 0
        });
        pinger
    }

    /// The results since the last call.
    pub(super) fn results_since_last_call(&mut self) -> Pings {
        self.requests.write_all(b"\n").unwrap();
        let mut line = String::new();
        self.responses.read_line(&mut line).unwrap();
        let response: Value = serde_json::from_str(&line).unwrap();
        let number = |field: &str| response[field].as_u64().unwrap();
        Pings { sent: number("sent"), lost: number("lost"), gap_ms: number("gap_ms") }
    }

    /// Asserts that none of the next `at_least` pings is lost.
    #[track_caller]
    pub(super) fn assert_none_lost(&mut self, what: &str, at_least: u64) {
        let mut all = Pings::default();
        wait_for_blocking(Duration::from_secs(at_least / 50 + 20), "pings to be sent", || {
            let Pings { sent, lost, gap_ms } = self.results_since_last_call();
            assert_eq!(lost, 0, "{what}: of {sent} pings of {}, the longest gap {gap_ms} ms", self.name);
            all = Pings { sent: all.sent + sent, lost: 0, gap_ms: all.gap_ms.max(gap_ms) };
            all.sent >= at_least
        });
        println!("{what}: {} lost none of {} pings, longest gap {} ms", self.name, all.sent, all.gap_ms);
    }

    /// Waits until pings are answered again, and returns the results since the last call.
    #[track_caller]
    pub(super) fn wait_for_recovery(&mut self, what: &str) -> Pings {
        let mut all = Pings::default();
        wait_for_blocking(DEADLINE, &format!("{what}: pings of {} to be answered", self.name), || {
            let Pings { sent, lost, gap_ms } = self.results_since_last_call();
            all = Pings { sent: all.sent + sent, lost: all.lost + lost, gap_ms: all.gap_ms.max(gap_ms) };
            sent > 0 && lost == 0
        });
        println!("{what}: {} lost {} pings, longest gap {} ms", self.name, all.lost, all.gap_ms);
        all
    }
}

/// A capture by `tcpdump` on a device, or on all devices of a namespace.
pub(super) struct Capture {
    folder: TempDir,
    _program: RunningProgram,
}

impl Capture {
    /// Starts it, and returns when it captures. Only the first 200 bytes of each packet are kept.
    pub(super) fn start(lab: &Lab, namespace: &str, device: &str) -> Self {
        let folder = tempdir().unwrap();
        let file = folder.path().join("pcap");
        let tcpdump = [
            "tcpdump",
            "-i",
            device,
            "--immediate-mode",
            "-B",
            "16384",
            "-n",
            "-U",
            "-s",
            "200",
            "-Z",
            "root",
            "-w",
            file.to_str().unwrap(),
        ];
        let program = RunningProgram::start(&lab.namespace(namespace), &tcpdump);
        // It writes the file's header when it has started to capture.
        let listens = || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0);
        wait_for_blocking(DEADLINE, "tcpdump to listen", listens);
        Self { folder, _program: program }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("pcap")
    }

    /// The packets so far that match a filter, in the output format of `tcpdump`.
    pub(super) fn packets(&self, filter: &str) -> Vec<String> {
        let output = Command::new("tcpdump").args(["-n", "-r"]).arg(self.file()).arg(filter).output().unwrap();
        // The last packet may be incomplete while it is written.
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || errors.contains("truncated dump file"), "{errors}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Whether a packet contains a text.
    pub(super) fn contains(&self, text: &str) -> bool {
        std::fs::read(self.file()).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    }
}

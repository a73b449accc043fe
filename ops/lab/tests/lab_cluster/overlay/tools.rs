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
pub(super) struct Running(Child);

impl Running {
    /// Starts it. What it says on standard output can be read.
    pub(super) fn start(namespace: &str, program: &[&str]) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).args(program).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn python(namespace: &str, script: &str, arguments: &[&str]) -> Self {
        let interpreter = interpreter();
        Self::start(namespace, &[&[interpreter.to_str().unwrap(), "-c", script], arguments].concat())
    }

    pub(super) fn said(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Lab {
    /// Runs a script in a namespace of the lab, and returns its output.
    #[track_caller]
    pub(super) fn python(&self, place: &str, script: &str, arguments: &[&str]) -> String {
        let interpreter = interpreter();
        let program = [interpreter.to_str().unwrap(), "-c", script];
        self.lab(&[&["exec", place, "--"], &program[..], arguments].concat())
    }

    /// A guest's server, under a name.
    pub(super) fn serve(&self, guest: &str) -> Running {
        let mut server = Running::python(&self.namespace(&format!("vm:{guest}")), GUEST_PROGRAM, &["serve", guest]);
        let mut said = String::new();
        server.said().read_line(&mut said).unwrap();
        assert_eq!(said, "listening\n");
        server
    }

    /// Who answers a guest at an address, once this many bytes have come back and forth unaltered.
    #[track_caller]
    pub(super) fn exchange(&self, guest: &str, address: &str, bytes: u32) -> String {
        self.python(&format!("vm:{guest}"), GUEST_PROGRAM, &["call", address, &bytes.to_string()]).trim().to_owned()
    }

    /// Sends a text in a datagram from a guest.
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
    /// The longest time from one answer to the next.
    pub(super) gap_ms: u64,
}

/// A guest that pings another every 5 ms.
pub(super) struct Pinger {
    name: String,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    _program: Running,
}

impl Pinger {
    /// Starts it. The first answers have arrived when this returns.
    pub(super) fn start(lab: &Lab, guest: &str, address: &str) -> Self {
        let mut program = Running::python(&lab.namespace(&format!("vm:{guest}")), PINGER, &[address]);
        let questions = program.0.stdin.take().unwrap();
        let name = format!("{guest} to {address}");
        let mut pinger = Self { name, questions, answers: program.said(), _program: program };
        wait_for_blocking(DEADLINE, &format!("pings of {}", pinger.name), || {
            let pings = pinger.so_far();
            pings.sent > 0 && pings.lost == 0
        });
        pinger
    }

    /// The results since the last call.
    pub(super) fn so_far(&mut self) -> Pings {
        self.questions.write_all(b"\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let number = |field: &str| answer[field].as_u64().unwrap();
        Pings { sent: number("sent"), lost: number("lost"), gap_ms: number("gap_ms") }
    }

    /// That none is lost until this many have been sent.
    #[track_caller]
    pub(super) fn loses_none(&mut self, what: &str, at_least: u64) {
        let mut all = Pings::default();
        wait_for_blocking(Duration::from_secs(at_least / 50 + 20), "pings to be sent", || {
            let Pings { sent, lost, gap_ms } = self.so_far();
            assert_eq!(lost, 0, "{what}: of {sent} pings of {}, the longest gap {gap_ms} ms", self.name);
            all = Pings { sent: all.sent + sent, lost: 0, gap_ms: all.gap_ms.max(gap_ms) };
            all.sent >= at_least
        });
        println!("{what}: {} lost none of {} pings, longest gap {} ms", self.name, all.sent, all.gap_ms);
    }

    /// What came of the pings, once they are answered again.
    #[track_caller]
    pub(super) fn recovers(&mut self, what: &str) -> Pings {
        let mut all = Pings::default();
        wait_for_blocking(DEADLINE, &format!("{what}: pings of {} to be answered", self.name), || {
            let Pings { sent, lost, gap_ms } = self.so_far();
            all = Pings { sent: all.sent + sent, lost: all.lost + lost, gap_ms: all.gap_ms.max(gap_ms) };
            sent > 0 && lost == 0
        });
        println!("{what}: {} lost {} pings, longest gap {} ms", self.name, all.lost, all.gap_ms);
        all
    }
}

/// What passes a device, or all of a namespace, by `tcpdump`.
pub(super) struct Capture {
    folder: TempDir,
    _program: Running,
}

impl Capture {
    /// Starts it. It is capturing when this returns. Only the start of each packet is kept.
    pub(super) fn start(lab: &Lab, place: &str, device: &str) -> Self {
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
        let program = Running::start(&lab.namespace(place), &tcpdump);
        // It writes the file's header when it listens.
        let listens = || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0);
        wait_for_blocking(DEADLINE, "tcpdump to listen", listens);
        Self { folder, _program: program }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("pcap")
    }

    /// The packets so far that a filter matches, as `tcpdump` puts them.
    pub(super) fn packets(&self, filter: &str) -> Vec<String> {
        let output = Command::new("tcpdump").args(["-n", "-r"]).arg(self.file()).arg(filter).output().unwrap();
        // It may be reading while the last one is written.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || said.contains("truncated dump file"), "{said}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Whether a text was in one of them.
    pub(super) fn has(&self, text: &str) -> bool {
        std::fs::read(self.file()).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    }
}

//! Background processes, which outlive the command that started them. Each is recorded with its start time, so that a
//! reused process id is never signalled.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::lab::{Lab, write_json};
use crate::wait::wait_for;

/// Time-out for a process to end: while the kernel removes links, even a killed process takes up to half a minute.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of log lines that an error shows.
const LAST_LINES: usize = 8;

/// A process, identified by its id and its start time in clock ticks since boot: ids are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabProcess {
    pub(crate) pid: i32,
    started: u64,
}

/// The fields of `/proc/PID/stat` that are used.
struct ProcStat {
    /// A zombie without other threads. While another thread is in an uninterruptible system call, the process still
    /// holds its files and locks although its first thread has ended.
    ended: bool,
    parent: i32,
    started: u64,
}

/// Starts `command` in a new session and records it as `name`. Its output is appended to the log of that name.
pub(crate) fn start(lab: &Lab, name: &str, command: &Command, stdin: Stdio) -> Result<LabProcess, LabError> {
    let path = lab.log(name);
    let failed = |source| LabError::File { attempt: "write", path: path.clone(), source };
    let log = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    // `setsid` executes the program without forking: the id is the program's.
    let mut session = Command::new("setsid");
    session.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => session.env(name, value),
            None => session.env_remove(name),
        };
    }
    let child = session.stdin(stdin).stdout(log).stderr(errors).current_dir("/").spawn();
    let child = child.map_err(|source| LabError::Run { command: format!("setsid … ({name})"), source })?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let stat = stat(pid).ok_or_else(|| ended(lab, name))?;
    let process = LabProcess { pid, started: stat.started };
    write_json(&lab.record(name), &process)?;
    Ok(process)
}

/// The process recorded as `name`, if it is still running.
pub(crate) fn running(lab: &Lab, name: &str) -> Result<Option<LabProcess>, LabError> {
    let path = lab.record(name);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LabError::File { attempt: "read", path, source }),
    };
    // A damaged record identifies no process.
    Ok(serde_json::from_slice::<LabProcess>(&text).ok().filter(|process| process.is_running()))
}

/// Deletes the record of `name`.
pub(crate) fn remove_record(lab: &Lab, name: &str) -> Result<(), LabError> {
    let path = lab.record(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::File { attempt: "remove", path, source: error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The names of all recorded processes.
pub(crate) fn names(lab: &Lab) -> Vec<String> {
    let Ok(entries) = fs::read_dir(lab.folder().join("processes")) else {
        return Vec::new();
    };
    let name = |path: PathBuf| path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    entries.filter_map(|entry| name(entry.ok()?.path())).collect()
}

/// The error for a process that should be running and is not.
pub(crate) fn ended(lab: &Lab, name: &str) -> LabError {
    let log = lab.log(name);
    let text = fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last_lines = lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).map(|line| format!("  {line}"));
    LabError::Ended { name: name.to_owned(), log, last_lines: last_lines.collect::<Vec<_>>().join("\n") }
}

impl LabProcess {
    /// The process that has this id now, if it is running.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        stat(pid).filter(|stat| !stat.ended).map(|stat| Self { pid, started: stat.started })
    }

    /// The only child of this process.
    pub(crate) fn child(self) -> Option<Self> {
        let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_child = |pid: &i32| stat(*pid).is_some_and(|stat| stat.parent == self.pid && !stat.ended);
        pids.into_iter().find(is_child).and_then(Self::of)
    }

    pub(crate) fn is_running(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Signals this process if it is still running.
    pub(crate) fn signal(self, name: &str, signal: Signal) -> Result<(), LabError> {
        let failed =
            |error: rustix::io::Errno| LabError::Signal { name: name.to_owned(), pid: self.pid, source: error.into() };
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        // The pidfd refers to the same process from here on; check afterwards that it is the recorded one.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !self.is_running() {
            return Ok(());
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Signals it and waits until it has ended.
    pub(crate) fn end(self, name: &str, signal: Signal) -> Result<(), LabError> {
        self.signal(name, signal)?;
        wait_for(&format!("{name} to end"), END_TIMEOUT, || Ok(!self.is_running()))
    }
}

fn stat(pid: i32) -> Option<ProcStat> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The second field is the program's name in brackets and may contain any character.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let threads: u64 = fields.nth(15)?.parse().ok()?; // field 20 of proc(5)
    let started = fields.nth(1)?.parse().ok()?; // field 22
    Some(ProcStat { ended: zombie && threads <= 1, parent, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifies_a_process_by_its_start_time() {
        let own = LabProcess::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_running());
        assert!(!LabProcess { started: own.started + 1, ..own }.is_running());
        assert!(own.started > 0);
        assert_eq!(stat(own.pid).unwrap().parent, i32::try_from(std::os::unix::process::parent_id()).unwrap());
    }

    #[test]
    fn is_running_until_the_last_thread_has_ended() {
        // The first thread ends; the other sleeps.
        let script = "import ctypes, threading, time\n\
                      threading.Thread(target=lambda: time.sleep(60)).start()\n\
                      ctypes.CDLL(None).pthread_exit(None)";
        let mut child = Command::new("python3").args(["-c", script]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().split(' ').nth(2).unwrap().to_owned();
        wait_for("the first thread to end", END_TIMEOUT, || Ok(state() == "Z")).unwrap();
        let process = LabProcess::of(pid).unwrap();
        assert!(process.is_running());
        process.end("python3", Signal::KILL).unwrap();
        assert!(!process.is_running());
        child.wait().unwrap();
    }
}

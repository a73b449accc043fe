//! Kills of agent, launcher and QEMU at any moment: nothing runs twice, nothing is lost, and nothing is left.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use otherix_testkit::wait::wait_for_blocking;
use otherix_vm::folder::{VmFolder, read_json, write_json};
use otherix_vm::process::{self, Found, VmProcess};
use otherix_vm::qmp::{QmpClient, RunState};

use crate::guest::{SOON, TestVm, launcher};

const FOLDER: &str = "OTHERIX_TEST_VM";

/// The launchers and QEMU processes of a VM: those that name it or its folder.
fn processes(vm: &TestVm) -> Vec<String> {
    let names = [vm.spec.vm.to_string(), vm.folder.path().to_string_lossy().into_owned()];
    let line = |entry: std::fs::DirEntry| {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?.replace('\0', " ");
        names.iter().any(|name| line.contains(name)).then_some(line)
    };
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| line(entry.unwrap())).collect()
}

/// What the VM has after a kill, when that is certain.
fn settled(vm: &TestVm) -> Option<VmProcess> {
    wait_for_blocking(SOON, "a process or none", || match process::find(&vm.folder).unwrap() {
        Found::Changing => None,
        Found::Running(process) => Some(Some(process)),
        Found::Free(_) => Some(None),
    })
}

/// Stands for an agent: starts the VM whenever it has no process. A process of its own, so that it can be killed.
#[test]
#[ignore = "run by the tests of this file"]
fn agent() {
    let folder = VmFolder::new(PathBuf::from(std::env::var_os(FOLDER).expect("run by another test")));
    let spec = read_json(&folder.path().join("spec.json")).unwrap().unwrap();
    let mut own = Vec::new();
    loop {
        if let Found::Free(lock) = process::find(&folder).unwrap() {
            own.push(process::start(lock, &launcher(), &spec).unwrap());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Agent(Child);

impl Agent {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kills::agent", "--ignored"]).env(FOLDER, folder);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Two agents at once, which is one too many, each killed at a moment of its own.
#[tokio::test]
async fn agents_are_killed_at_any_moment() {
    let vm = TestVm::new();
    write_json(&vm.folder.path().join("spec.json"), &vm.spec).unwrap();
    let mut starts = 0;
    for round in 0..60_u64 {
        let agents = [Agent::start(vm.folder.path()), Agent::start(vm.folder.path())];
        let mut highest = 0;
        for agent in agents {
            let until = std::time::Instant::now() + Duration::from_millis(round * 7 % 90);
            while std::time::Instant::now() < until {
                highest = highest.max(processes(&vm).len());
            }
            drop(agent);
        }
        // Each agent names the folder in its environment only, so that it does not count.
        assert!(highest <= 1, "{highest} processes in round {round}");
        let Some(process) = settled(&vm) else { continue };
        starts += 1;
        let client = QmpClient::connect(&vm.folder.qmp_socket(), process.pid(), SOON).await;
        assert_eq!(client.unwrap().status().await.unwrap(), RunState::Running, "round {round}: {}", vm.messages());
        assert_eq!(processes(&vm).len(), 1);
        if round % 3 != 0 {
            process.kill().unwrap();
            assert!(process.wait(SOON).unwrap());
        }
    }
    assert!(starts > 10, "only {starts} starts");
    if let Some(process) = settled(&vm) {
        process.kill().unwrap();
        assert!(process.wait(SOON).unwrap());
    }
    let Found::Free(lock) = process::find(&vm.folder).unwrap() else { panic!("a process is left") };
    lock.remove().unwrap();
    assert_eq!(processes(&vm), [""; 0]);
    assert!(!vm.folder.path().exists());
}

/// The launcher, and QEMU after it, is killed after a time from nothing to more than QEMU needs to set up.
#[test]
fn launcher_and_qemu_are_killed_at_any_moment() {
    let vm = TestVm::new();
    for round in 0..80_u64 {
        let mut process = vm.start();
        // The launcher's steps take microseconds to a millisecond each, QEMU's some 50 ms.
        let pause = if round % 2 == 0 { Duration::from_micros(round * 100) } else { Duration::from_millis(round) };
        std::thread::sleep(pause);
        process.kill().unwrap();
        assert!(process.wait(SOON).unwrap());
        process.reap().unwrap();
        assert!(matches!(process::find(&vm.folder).unwrap(), Found::Free(_)), "round {round}");
        assert_eq!(processes(&vm), [""; 0], "round {round}");
    }
    let Found::Free(lock) = process::find(&vm.folder).unwrap() else { panic!("a process is left") };
    lock.clean().unwrap();
    assert!(!vm.folder.qmp_socket().exists() && !vm.folder.console_socket().exists());
    lock.remove().unwrap();
    assert!(!vm.folder.path().exists());
}

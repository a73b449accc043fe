//! Kills of agent, launcher and QEMU at any moment: nothing runs twice, nothing is lost, and nothing is left.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use otherix_runtime::SystemRuntime;
use otherix_testkit::wait::wait_for_blocking;
use otherix_vm::folder::{VmFolder, read_json, write_json};
use otherix_vm::machine::{self, VmOrders, VmSetup, supervise};
use otherix_vm::process::{self, Found, VmProcess};
use otherix_vm::qmp::{QmpClient, RunState};
use otherix_vm::supervisor::{Desired, Power};
use tokio::sync::watch;

use crate::guest::{SOON, TestVm, launcher};

const FOLDER: &str = "OTHERIX_TEST_VM";
const REQUEST: &str = "OTHERIX_TEST_REQUEST";

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

/// On a busy machine an agent may take longer than a round.
fn wait_for_process(vm: &TestVm) {
    wait_for_blocking(SOON, "a process", || !processes(vm).is_empty());
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

/// Stands for an agent that supervises the VM.
#[tokio::test]
#[ignore = "run by the tests of this file"]
async fn supervising_agent() {
    let folder = VmFolder::new(PathBuf::from(std::env::var_os(FOLDER).expect("run by another test")));
    let spec = read_json(&folder.path().join("spec.json")).unwrap().unwrap();
    let request = std::env::var(REQUEST).unwrap().parse().unwrap();
    let desired = Desired { power: Power::Running, request, restart: None, stop_timeout: SOON };
    let (_orders, orders) = watch::channel(VmOrders { desired, spec });
    let (status, _status) = watch::channel(None);
    let setup = VmSetup {
        runtime: SystemRuntime::shared(),
        folder,
        launcher: launcher(),
        boot_id: "this one".to_owned(),
        check_disk: |_| Ok(()),
    };
    supervise(setup, orders, status).await.unwrap();
}

struct Agent(Child);

impl Agent {
    fn start(folder: &Path) -> Self {
        Self::start_as("kills::agent", folder, 0)
    }

    fn start_as(test: &str, folder: &Path, request: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--ignored"]).env(FOLDER, folder).env(REQUEST, request.to_string());
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
        if round % 4 == 0 {
            wait_for_process(&vm);
        }
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

/// One agent after another, and in between, or at the same time, the VM's process.
#[tokio::test]
async fn supervising_agents_and_qemu_are_killed_at_any_moment() {
    let vm = TestVm::new();
    write_json(&vm.folder.path().join("spec.json"), &vm.spec).unwrap();
    let start = |request| Agent::start_as("kills::supervising_agent", vm.folder.path(), request);
    let mut rounds_with_process = 0;
    for round in 0..60_u64 {
        // Another request each time: one that fails too often is given up.
        let agent = start(round);
        if round % 2 == 0 {
            wait_for_process(&vm);
        }
        let until = std::time::Instant::now() + Duration::from_millis(20 + round * 13 % 120);
        let mut highest = 0;
        while std::time::Instant::now() < until {
            highest = highest.max(processes(&vm).len());
            if round % 4 == 3
                && let Ok(Found::Running(process)) = process::find(&vm.folder)
            {
                process.kill().unwrap();
            }
        }
        drop(agent);
        assert!(highest <= 1, "{highest} processes in round {round}");
        rounds_with_process += highest;
        if round % 4 == 2
            && let Some(process) = settled(&vm)
        {
            process.kill().unwrap();
            assert!(process.wait(SOON).unwrap());
        }
    }
    assert!(rounds_with_process > 20, "only in {rounds_with_process} rounds");
    let agent = start(1000);
    let process = vm.found();
    drop(agent);
    let client = QmpClient::connect(&vm.folder.qmp_socket(), process.pid(), SOON).await;
    assert_eq!(client.unwrap().status().await.unwrap(), RunState::Running, "{}", vm.messages());
    machine::remove(&vm.folder, SOON).await.unwrap();
    assert_eq!(processes(&vm), [""; 0]);
    assert!(!vm.folder.path().exists());
}

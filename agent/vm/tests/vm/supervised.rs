//! A VM under supervision, with the real QEMU.

mod in_qemu {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use otherix_runtime::{Runtime, SystemRuntime, Task};
    use otherix_vm::console::{Console, ConsoleLog};
    use otherix_vm::machine::{self, VmOrders, VmSetup, VmStatus};
    use otherix_vm::seed::Seed;
    use otherix_vm::supervisor::{Cause, Desired, Phase, Power};
    use tokio::sync::watch;

    use crate::guest::{BOOT, PROMPT, SOON, TestVm, launcher};

    struct Supervised {
        orders: watch::Sender<VmOrders>,
        status: watch::Receiver<Option<VmStatus>>,
        task: Task<std::io::Result<()>>,
    }

    fn supervise(vm: &TestVm, power: Power, request: u64) -> Supervised {
        let runtime: Arc<dyn Runtime> = SystemRuntime::shared();
        let desired = Desired { power, request, restart: None, stop_timeout: BOOT };
        let (orders, receiver) = watch::channel(VmOrders { desired, spec: vm.spec.clone() });
        let (sender, status) = watch::channel(None);
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let setup = VmSetup {
            runtime: Arc::clone(&runtime),
            folder: vm.folder.clone(),
            launcher: launcher(),
            boot_id,
            check_disk: |_| Ok(()),
        };
        Supervised { orders, status, task: runtime.spawn("vm", machine::supervise(setup, receiver, sender)) }
    }

    impl Supervised {
        fn order(&self, change: impl FnOnce(&mut Desired)) {
            self.orders.send_modify(|orders| {
                orders.desired.request += 1;
                change(&mut orders.desired);
            });
        }

        async fn status(&mut self, what: &str, wanted: impl Fn(&VmStatus) -> bool) -> VmStatus {
            let found = self.status.wait_for(|status| status.as_ref().is_some_and(&wanted));
            let found = tokio::time::timeout(BOOT, found).await.map(|found| found.unwrap().clone().unwrap());
            found.unwrap_or_else(|_| panic!("not {what}: {:?}", self.status.borrow()))
        }
    }

    #[tokio::test]
    async fn lives() {
        let mut vm = TestVm::new();
        let seed = Seed {
            vm: vm.spec.vm,
            hostname: "web-7".into(),
            ssh_keys: Vec::new(),
            user_data: None,
            network_config: None,
        };
        seed.write(&vm.folder.seed()).unwrap();
        vm.spec.seed = Some(vm.folder.seed());
        let console =
            Console::start(&SystemRuntime::shared(), vm.folder.clone(), Arc::new(ConsoleLog::new(&vm.folder)));
        let mut output = console.read();
        let mut supervised = supervise(&vm, Power::Running, 1);
        let first = supervised.status("running", |status| status.phase == Phase::Running).await;
        let mut seen = String::new();
        while !seen.contains("guest: ready web-7") {
            let piece = tokio::time::timeout(BOOT, output.next()).await.unwrap().unwrap();
            seen += &String::from_utf8_lossy(&piece);
        }

        // The agent ends; the next one finds the VM, which has crashed once.
        drop(supervised.orders);
        supervised.task.await.unwrap().unwrap();
        let mut supervised = supervise(&vm, Power::Running, 1);
        let found = supervised.status("running", |status| status.phase == Phase::Running).await;
        assert_eq!(found.pid, first.pid);
        vm.found().kill().unwrap();
        let again = |status: &VmStatus| status.phase == Phase::Running && status.pid != first.pid;
        supervised.status("running again", again).await;

        // Powered off by the guest: stays off until somebody asks.
        wait_for_prompt(&vm, 2).await;
        let input = console.write().unwrap();
        input.type_bytes(b"poweroff -f\n").await.unwrap();
        let off = supervised.status("stopped", |status| status.phase == Phase::Stopped).await;
        assert_eq!((off.cause, off.pid), (Some(Cause::PoweredOff), None));
        assert!(off.last_line.unwrap().contains("reboot: Power down"));

        supervised.order(|desired| desired.power = Power::Running);
        supervised.status("running", |status| status.phase == Phase::Running).await;
        wait_for_prompt(&vm, 3).await;
        supervised.order(|desired| desired.power = Power::Stopped);
        let stopped = supervised.status("stopped", |status| status.phase == Phase::Stopped).await;
        assert_eq!(stopped.cause, None);
        // Asked, not killed.
        assert_eq!(vm.console().matches("guest: power button").count(), 1);
        supervised.task.abort();
        machine::remove(&vm.folder, SOON).await.unwrap();
        assert!(!vm.folder.path().exists());
        machine::remove(&vm.folder, SOON).await.unwrap();
    }

    /// Waits for the prompt of the shell after so many boots.
    async fn wait_for_prompt(vm: &TestVm, boots: usize) {
        otherix_testkit::wait::wait_for(BOOT, "the prompt", async || {
            let console = vm.console();
            let is_at_prompt = console.ends_with(PROMPT) && console.matches("guest: ready").count() == boots;
            if is_at_prompt { Ok(()) } else { Err(console) }
        })
        .await;
    }

    #[tokio::test]
    async fn fails_with_a_reason() {
        let mut vm = TestVm::new();
        vm.spec.program = "/nonexistent".into();
        let mut supervised = supervise(&vm, Power::Running, 1);
        let failing = |status: &VmStatus| status.cause.is_some();
        let status = supervised.status("failing", failing).await;
        assert_eq!(status.phase, Phase::Starting);
        let cause = status.cause.unwrap().to_string();
        assert!(cause.contains("cannot execute `/nonexistent`: No such file or directory"), "{cause}");
        supervised.task.abort();
        machine::remove(&vm.folder, SOON).await.unwrap();
    }

    /// In place of a QEMU that a guest has taken over: says on stderr when somebody connects, answers as if all were
    /// well, then sends what the argument says, without end.
    const HOSTILE: &str = r#"#!/usr/bin/python3
import re, socket, sys
line = " ".join(sys.argv)
server = socket.socket(fileno=int(re.search(r"id=qmp,fd=(\d+)", line).group(1)))
while True:
    client, _ = server.accept()
    print("CONNECTED", file=sys.stderr, flush=True)
    try:
        client.sendall(b'{"QMP": {}}\n{"return": {}, "id": 1}\n')
        client.sendall(b'{"return": {"status": "running"}, "id": 2}\n')
        while True:
            client.sendall(FLOOD)
    except OSError:
        pass
"#;

    /// A script in place of QEMU, where any user may execute it.
    struct Program {
        _folder: tempfile::TempDir,
        path: PathBuf,
    }

    impl Program {
        fn new(script: &str) -> Self {
            let mode = PermissionsExt::from_mode(0o755);
            // The process of a VM has no access to the folder of a test run, if that is its owner's only.
            let folder = tempfile::Builder::new().permissions(mode).tempdir_in("/tmp").unwrap();
            let path = folder.path().join("program");
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            Self { _folder: folder, path }
        }
    }

    #[tokio::test]
    async fn slow_start_is_noticed_when_it_is_over() {
        let mut vm = TestVm::new();
        let program = Program::new("#!/bin/sh\nsleep 2\nexec /usr/bin/qemu-system-x86_64 \"$@\"\n");
        vm.spec.program.clone_from(&program.path);
        let start = tokio::time::Instant::now();
        let mut supervised = supervise(&vm, Power::Running, 1);
        supervised.status("running", |status| status.phase == Phase::Running).await;
        let time = start.elapsed();
        assert!(time > Duration::from_secs(2) && time < Duration::from_secs(15), "{time:?}");
        supervised.task.abort();
        machine::remove(&vm.folder, SOON).await.unwrap();
    }

    #[tokio::test]
    async fn hostile_qemu_does_not_keep_the_agent_busy() {
        for flood in [r#"b'{"event": "RESET"}\n'"#, "b'garbage\\n'", "b'x'"] {
            let mut vm = TestVm::new();
            let program = Program::new(&HOSTILE.replace("FLOOD", flood));
            vm.spec.program.clone_from(&program.path);
            let mut supervised = supervise(&vm, Power::Running, 1);
            supervised.status("running", |status| status.phase == Phase::Running).await;
            let start = tokio::time::Instant::now();
            otherix_testkit::wait::wait_for(SOON, "three connections", async || {
                let count = vm.messages().matches("CONNECTED").count();
                if count >= 3 { Ok(()) } else { Err(count) }
            })
            .await;
            let rate = vm.messages().matches("CONNECTED").count() as f64 / start.elapsed().as_secs_f64();
            assert!(rate < 4.0, "{rate} connections a second, with {flood}");
            supervised.task.abort();
            machine::remove(&vm.folder, SOON).await.unwrap();
        }
    }
}

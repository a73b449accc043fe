//! A VM under supervision, with the real QEMU.

mod in_qemu {
    use std::sync::Arc;

    use otherix_runtime::{Runtime, SystemRuntime, Task};
    use otherix_vm::console::Console;
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
        let setup = VmSetup { runtime: Arc::clone(&runtime), folder: vm.folder.clone(), launcher: launcher(), boot_id };
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
        let console = Console::start(&SystemRuntime::shared(), vm.folder.clone());
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
}

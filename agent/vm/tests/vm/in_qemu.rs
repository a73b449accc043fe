//! A VM's life: boot, shutdown, reset, panic, pause, adoption by another agent, and what its process may do.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use otherix_testkit::netns::{enter_new, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::TapDevice;
use otherix_vm::process::{self, Found};
use otherix_vm::qmp::{QmpCommand, QmpEvent, RunState, ShutdownReason};
use otherix_vm::spec::{Accelerator, NicSpec};

use crate::guest::{BOOT, SOON, TestVm, status_field};

/// The next event of a kind that is looked for; others are skipped.
async fn event(client: &mut otherix_vm::qmp::QmpClient, wanted: &QmpEvent) {
    let wait = async { while client.next_event().await.unwrap() != *wanted {} };
    tokio::time::timeout(BOOT, wait).await.unwrap_or_else(|_| panic!("no event {wanted:?}"));
}

#[tokio::test]
async fn boots_and_powers_off_when_asked() {
    let vm = TestVm::new();
    let mut process = vm.start();
    let mut client = vm.connect(&process).await;
    assert_eq!(client.status().await.unwrap(), RunState::Running);
    vm.wait_for_console("guest: ready");

    client.execute(QmpCommand::PowerDown).await.unwrap();
    event(&mut client, &QmpEvent::Shutdown(ShutdownReason::Guest)).await;
    // It waits, so that an agent that was away can ask.
    assert_eq!(client.status().await.unwrap(), RunState::Shutdown);
    assert!(matches!(process::find(&vm.folder).unwrap(), Found::Running(_)));
    let _answer = client.execute(QmpCommand::Quit).await;
    tokio::time::timeout(SOON, process.ended()).await.unwrap().unwrap();
    assert!(process.reap().unwrap().unwrap().success());

    let Found::Free(lock) = process::find(&vm.folder).unwrap() else { panic!("the lock is held") };
    lock.clean().unwrap();
    let mut left: Vec<_> =
        std::fs::read_dir(vm.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["console.log", "disk.qcow2", "lock", "qemu.log"]);
    assert_eq!(vm.messages(), "");
    lock.remove().unwrap();
    assert!(!vm.folder.path().exists());
}

/// What QEMU is: checked in the kernel, not in what was asked for.
#[tokio::test]
async fn process_has_no_privileges() {
    // As that of an agent may differ, though in the other direction.
    std::fs::write("/proc/self/oom_score_adj", "100").unwrap();
    let vm = TestVm::new();
    let process = vm.start();
    let _client = vm.connect(&process).await;
    let pid = process.pid();
    let user = vm.spec.user.to_string();
    for (field, expected) in [
        ("Uid", [user.as_str(); 4].join(" ")),
        ("Gid", [user.as_str(); 4].join(" ")),
        ("Groups", String::new()),
        ("CapInh", "0".repeat(16)),
        ("CapPrm", "0".repeat(16)),
        ("CapEff", "0".repeat(16)),
        ("CapBnd", "0".repeat(16)),
        ("CapAmb", "0".repeat(16)),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
        ("NSsid", pid.to_string()),
    ] {
        assert_eq!(status_field(pid, field), expected, "{field}");
    }
    // The same reading finds privileges where there are some.
    let own = std::process::id().cast_signed();
    assert_ne!(status_field(own, "CapEff"), "0".repeat(16));
    assert_eq!(status_field(own, "Seccomp"), "0");

    for namespace in ["net", "ipc"] {
        let of = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(pid), of(own), "{namespace}");
    }
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "0");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    // Nothing in the folder is its, and nobody else gets in.
    let folder = vm.folder.path().metadata().unwrap();
    assert_eq!((folder.uid(), folder.permissions().mode() & 0o777), (0, 0o700));
    for entry in std::fs::read_dir(vm.folder.path()).unwrap() {
        let metadata = entry.as_ref().unwrap().metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o077), (0, 0), "{entry:?}");
    }
}

/// All that the process has open is what it needs: in particular nothing of the agent.
#[tokio::test]
async fn process_inherits_only_its_own_descriptors() {
    use rustix::io::{FdFlags, fcntl_setfd};
    let vm = TestVm::new();
    // As a library might leave it open.
    let leaked = std::fs::File::open("/etc/hostname").unwrap();
    fcntl_setfd(&leaked, FdFlags::empty()).unwrap();
    let process = vm.start();
    let _client = vm.connect(&process).await;
    let folder = format!("/proc/{}/fd", process.pid());
    let open: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| Some(std::fs::read_link(entry.unwrap().path()).ok()?.to_string_lossy().into_owned()))
        .filter(|target| target.starts_with('/'))
        .collect();
    let ours = |name: &str| vm.folder.path().join(name).to_string_lossy().into_owned();
    for target in &open {
        let expected = ["lock", "disk.qcow2", "console.log", "qemu.log"].map(ours).contains(target)
            || *target == vm.spec.base.path.to_string_lossy()
            || target == "/dev/null"
            || target.starts_with("/memfd:");
        assert!(expected, "{target} of {open:?}");
    }
    assert!(open.contains(&ours("lock")), "{open:?}");
}

/// An agent that was restarted finds the same process, and never starts a second.
#[tokio::test]
async fn another_agent_finds_the_process() {
    let vm = TestVm::new();
    let first = vm.start();
    drop(vm.connect(&first).await);
    let found = vm.found();
    assert_eq!(found.pid(), first.pid());
    assert_eq!(vm.folder.running_spec().unwrap().unwrap(), vm.spec);
    let age = found.age().unwrap();
    wait_for_blocking(SOON, "the passage of time", || found.age().unwrap() > age && age < SOON);
    let mut client = vm.connect(&found).await;
    assert_eq!(client.status().await.unwrap(), RunState::Running);
    client.execute(QmpCommand::Pause).await.unwrap();
    event(&mut client, &QmpEvent::Stopped).await;
    assert_eq!(client.status().await.unwrap(), RunState::Paused);
    client.execute(QmpCommand::Resume).await.unwrap();
    event(&mut client, &QmpEvent::Resumed).await;
    found.kill().unwrap();
    tokio::time::timeout(SOON, found.ended()).await.unwrap().unwrap();
    assert!(client.status().await.is_err());
    assert_eq!(found.age(), None);
    assert!(matches!(process::find(&vm.folder).unwrap(), Found::Free(_)));
}

#[tokio::test]
async fn resets_and_panics_are_told() {
    let vm = TestVm::new();
    let process = vm.start();
    let mut client = vm.connect(&process).await;
    vm.wait_for_console("guest: ready");
    client.execute(QmpCommand::Reset).await.unwrap();
    event(&mut client, &QmpEvent::Reset).await;
    wait_for_blocking(BOOT, "the second start", || vm.console().matches("guest: ready").count() == 2);
    let mut console = vm.console_stream();
    vm.type_command(&mut console, "echo c > /proc/sysrq-trigger");
    event(&mut client, &QmpEvent::GuestPanicked).await;
    assert_eq!(client.status().await.unwrap(), RunState::GuestPanicked);
    assert!(vm.console().contains("sysrq: Trigger a crash"), "{}", vm.console());
}

/// The tap is opened by the launcher, as root; QEMU, which is in another namespace, serves it.
#[tokio::test]
async fn guest_is_on_its_tap() {
    enter_new();
    let tap = TapDevice::create("tap0").unwrap();
    tap.set_persistent(true).unwrap();
    drop(tap);
    sh("ip link set tap0 up; ip addr add 10.9.0.1/24 dev tap0");
    let mut vm = TestVm::new();
    vm.spec.nic = Some(NicSpec { tap: "tap0".into(), mac: [0x52, 0x54, 0, 1, 2, 3], offload: true });
    let process = vm.start();
    let _client = vm.connect(&process).await;
    vm.wait_for_console("guest: ready");
    let mut console = vm.console_stream();
    vm.type_command(&mut console, "ip addr add 10.9.0.2/24 dev eth0; echo se''t");
    vm.wait_for_console("\nset");
    sh("ping -c 3 -i 0.2 -W 5 10.9.0.2 >/dev/null");
    assert!(sh("ip neigh show 10.9.0.2").contains("52:54:00:01:02:03"));
    // Segments larger than a packet, and checksums that nobody has filled in.
    vm.type_command(&mut console, "dd if=/dev/zero bs=64k count=64 2>/dev/null | nc -l -p 7 &");
    let mut stream = wait_for_blocking(SOON, "a connection", || std::net::TcpStream::connect("10.9.0.2:7"));
    stream.set_read_timeout(Some(BOOT)).unwrap();
    assert_eq!(std::io::copy(&mut stream, &mut std::io::sink()).unwrap(), 4 << 20);

    // A second process gets neither the lock nor the tap.
    let mut other = TestVm::new();
    other.spec.nic.clone_from(&vm.spec.nic);
    let mut refused = other.start();
    assert!(refused.wait(SOON).unwrap());
    assert!(!refused.reap().unwrap().unwrap().success());
    assert!(other.messages().contains("tap `tap0` is in use"), "{}", other.messages());
}

#[test]
fn failures_are_in_the_messages() {
    type Change = fn(&mut TestVm);
    let cases: [(&str, Change); 5] = [
        ("disk.qcow2", |vm| std::fs::remove_file(vm.folder.disk()).unwrap()),
        ("tap `absent`", |vm| vm.spec.nic = Some(NicSpec { tap: "absent".into(), mac: [2; 6], offload: false })),
        ("cannot execute `/nonexistent`", |vm| vm.spec.program = "/nonexistent".into()),
        ("it is not a regular file", |vm| vm.spec.seed = Some("/dev/zero".into())),
        ("memory", |vm| vm.spec.memory_mib = 1 << 30),
    ];
    for (expected, change) in cases {
        let mut vm = TestVm::new();
        change(&mut vm);
        let mut process = vm.start();
        assert!(process.wait(SOON).unwrap(), "{expected}");
        assert!(!process.reap().unwrap().unwrap().success());
        assert!(vm.messages().contains(expected), "{expected}: {}", vm.messages());
        assert!(matches!(process::find(&vm.folder).unwrap(), Found::Free(_)));
    }
}

/// By hand, or with another VM's lock, it does not start.
#[test]
fn launcher_needs_the_lock() {
    let vm = TestVm::new();
    let lock = vm.folder.try_lock().unwrap().unwrap();
    for path in ["/dev/null", "/etc/hostname"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_otherix-vm-launch"))
            .arg(vm.folder.path())
            .stdin(std::fs::File::open(path).unwrap())
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("not the VM's lock"), "{output:?}");
    }
    // The right file, opened anew, while somebody else holds the lock.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_otherix-vm-launch"))
        .arg(vm.folder.path())
        .stdin(std::fs::File::open(vm.folder.path().join("lock")).unwrap())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("not the VM's lock"), "{output:?}");
    drop(lock);
}

/// With the kernel of `ops/vmtest`. Whether KVM works depends on the machine; that the trial ends does not.
#[test]
fn trial_tells_what_boots() {
    use otherix_vm::accelerator::{TrialError, try_boot};
    let program = std::path::Path::new("/usr/bin/qemu-system-x86_64");
    let kernel = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/vmtest/vmlinux");
    try_boot(program, &kernel, Accelerator::Tcg, BOOT).unwrap();
    let short = std::time::Duration::from_millis(100);
    let error = try_boot(program, &kernel, Accelerator::Tcg, short).unwrap_err();
    assert!(matches!(error, TrialError::TimedOut(_)), "{error:?}");
    let error = try_boot(program, std::path::Path::new("/nonexistent"), Accelerator::Tcg, BOOT).unwrap_err();
    assert!(matches!(&error, TrialError::Ended(words) if words.contains("/nonexistent")), "{error:?}");
    let error = try_boot(std::path::Path::new("/nonexistent"), &kernel, Accelerator::Tcg, BOOT).unwrap_err();
    assert!(matches!(error, TrialError::Start(_)), "{error:?}");
}

/// The image that the lab serves passes the check of images.
#[test]
fn tiny_image_passes_the_header_check() {
    let image = std::fs::File::open(crate::guest::tiny_image()).unwrap();
    let info = otherix_image::inspect::inspect(image, 1 << 30);
    assert_eq!(info.unwrap().format, otherix_image::inspect::Format::Raw);
}

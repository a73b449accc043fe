//! The launcher in a cgroup, in a guest whose kernel has the controllers of version 2.

use std::path::Path;
use std::time::Duration;

use otherix_vm::folder::VmFolder;
use otherix_vm::launch::cgroup;
use otherix_vm::process::{self, Found, Launcher};
use otherix_vm::spec::{Accelerator, BaseImage, FIRST_USER, ImageFormat, LaunchSpec};
use otherix_vmtest::TestGuest;
use uuid::Uuid;

use crate::guest::status_field;

fn messages(folder: &VmFolder) -> String {
    std::fs::read_to_string(folder.messages()).unwrap_or_default()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// What a QEMU that a guest has taken over might try; each prints a word if it succeeds.
const ATTEMPTS: &str = "
cat /run/vm/launch.json >/dev/null && echo READ
touch /run/vm/new && echo WRITTEN
kill -0 1 && echo SIGNALLED
ping -c 1 -w 1 127.0.0.1 && echo PINGED
ip link show veth0 && echo SEEN
mknod /tmp/node b 254 0 && echo MADE
mount -t tmpfs none /mnt && echo MOUNTED
echo 0 >/proc/1/oom_score_adj && echo CHANGED
";

/// A script stands for QEMU: what is tested happens before.
#[test]
fn process_has_a_cgroup_and_no_privileges() {
    let launcher = Path::new(env!("CARGO_BIN_EXE_otherix-vm-launch"));
    TestGuest::default().with_program(launcher).run(|| {
        let mount = Path::new("/sys/fs/cgroup");
        assert!(matches!(cgroup::prepare(mount), Err(cgroup::CgroupError::NoVersion2(_))));
        otherix_testkit::netns::sh("mount -t cgroup2 none /sys/fs/cgroup");
        let parent = cgroup::prepare(mount).unwrap();
        assert_eq!(cgroup::prepare(mount).unwrap(), parent);

        let folder = VmFolder::new("/run/vm");
        folder.create().unwrap();
        for path in [folder.disk(), "/run/base".into()] {
            std::fs::write(path, "x").unwrap();
        }
        let script = format!("#!/bin/sh\n{ATTEMPTS}\necho DONE\nexec sleep 60\n");
        std::fs::write("/bin/stand-in", script).unwrap();
        otherix_testkit::netns::sh("chmod 755 /bin/stand-in; mkdir /mnt; ip link add veth0 type veth peer name veth1");
        let spec = LaunchSpec {
            vm: Uuid::nil(),
            generation: 1,
            program: "/bin/stand-in".into(),
            accelerator: Accelerator::Tcg,
            vcpus: 2,
            memory_mib: 512,
            disk: folder.disk(),
            base: BaseImage { path: "/run/base".into(), format: ImageFormat::Raw },
            seed: None,
            nic: None,
            user: FIRST_USER,
            cgroup: Some(parent.join("one")),
        };
        let Found::Free(lock) = process::find(&folder).unwrap() else { panic!("a process") };
        let launcher = Launcher { program: launcher.into(), arguments: Vec::new() };
        let mut process = process::start(lock, &launcher, &spec).unwrap();
        let name = format!("/proc/{}/comm", process.pid());
        otherix_testkit::wait::wait_for_blocking(Duration::from_secs(20), "the program", || {
            let name = read(Path::new(&name));
            if name == "sleep" { Ok(()) } else { Err((name, messages(&folder))) }
        });
        assert_eq!(read(Path::new(&format!("/proc/{}/cgroup", process.pid()))), "0::/otherix-vms/one");
        let own = parent.join("one");
        assert_eq!(read(&own.join("memory.max")), ((512_u64 + 256 + 16 + 256) << 20).to_string());
        assert_eq!(read(&own.join("memory.oom.group")), "1");
        assert_eq!(read(&own.join("cpu.max")), "250000 100000");
        assert_eq!(read(&own.join("pids.max")), "98");
        assert_eq!(read(Path::new("/proc/self/cgroup")), "0::/");
        // All attempts fail, and succeed for root.
        let is_word = |line: &str| !line.is_empty() && line.chars().all(char::is_uppercase);
        let words = |text: &str| text.lines().filter(|line| is_word(line)).count();
        assert!(messages(&folder).contains("DONE"), "{}", messages(&folder));
        assert_eq!(words(&messages(&folder)), 1, "{}", messages(&folder));
        let output = std::process::Command::new("sh").args(["-c", ATTEMPTS]).output().unwrap();
        assert_eq!(words(&String::from_utf8_lossy(&output.stdout)), 8, "{output:?}");
        // By the launcher: QEMU, which does some of it once more, is not there.
        for (field, expected) in [("NoNewPrivs", "1"), ("Seccomp", "0"), ("CapBnd", "0000000000000000")] {
            assert_eq!(status_field(process.pid(), field), expected, "{field}");
        }
        assert_eq!(status_field(process.pid(), "Uid"), vec![FIRST_USER.to_string(); 4].join(" "));

        assert!(cgroup::remove(&own).is_err());
        process.kill().unwrap();
        assert!(process.wait(Duration::from_secs(20)).unwrap());
        process.reap().unwrap();
        assert!(own.exists());
        let Found::Free(lock) = process::find(&folder).unwrap() else { panic!("a process") };
        lock.remove().unwrap();
        assert!(!own.exists() && !folder.path().exists());
        cgroup::remove(&own).unwrap();
    });
}

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

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// `sleep` stands for QEMU: what is tested happens before.
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
        std::fs::write("/bin/stand-in", "#!/bin/sh\nexec sleep 60\n").unwrap();
        otherix_testkit::netns::sh("chmod 755 /bin/stand-in");
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
            if name == "sleep" { Ok(()) } else { Err((name, std::fs::read_to_string(folder.messages()))) }
        });
        assert_eq!(read(Path::new(&format!("/proc/{}/cgroup", process.pid()))), "0::/otherix-vms/one");
        let own = parent.join("one");
        assert_eq!(read(&own.join("memory.max")), ((512_u64 + 256 + 16 + 256) << 20).to_string());
        assert_eq!(read(&own.join("memory.oom.group")), "1");
        assert_eq!(read(&own.join("cpu.max")), "250000 100000");
        assert_eq!(read(&own.join("pids.max")), "98");
        assert_eq!(read(Path::new("/proc/self/cgroup")), "0::/");
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

//! The command line of some specs, whole: a change shows in `tests/command_line/`.

use std::path::Path;

use otherix_testkit::generated::assert_up_to_date;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::spec::BaseImage;

fn spec() -> LaunchSpec {
    LaunchSpec {
        vm: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
        generation: 1,
        program: "/usr/bin/qemu-system-x86_64".into(),
        accelerator: Accelerator::Tcg,
        vcpus: 2,
        memory_mib: 2048,
        disk: "/vms/1/disk.qcow2".into(),
        base: BaseImage { path: "/images/a".into(), format: ImageFormat::Qcow2 },
        seed: Some("/vms/1/seed.img".into()),
        nic: Some(NicSpec { tap: "ot000000000001".into(), mac: [0x52, 0x54, 0, 1, 2, 0xff], offload: true }),
        user: crate::spec::FIRST_USER,
        cgroup: None,
    }
}

const DESCRIPTORS: Descriptors =
    Descriptors { disk: 10, base: 11, seed: Some(12), tap: Some(13), qmp: 14, console: 15, console_log: 16 };

#[test]
fn command_lines_are_generated() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/command_line");
    let check = |name: &str, spec: &LaunchSpec, descriptors: &Descriptors| {
        let mut text = arguments(spec, descriptors).join("\n");
        text.push('\n');
        assert_up_to_date(folder.join(name), &text);
    };
    check("everything.txt", &spec(), &DESCRIPTORS);
    let least = LaunchSpec { seed: None, nic: None, vcpus: 1, memory_mib: 128, ..spec() };
    let least = LaunchSpec { base: BaseImage { format: ImageFormat::Raw, ..least.base }, ..least };
    let descriptors = Descriptors { seed: None, tap: None, ..DESCRIPTORS };
    check("least.txt", &LaunchSpec { accelerator: Accelerator::Kvm, ..least }, &descriptors);
}

proptest! {
    /// Nothing that a user names reaches QEMU's option syntax.
    #[test]
    fn names_do_not_occur(text in "[a-z]{8},[a-z=]{8}") {
        let mut spec = LaunchSpec { disk: text.clone().into(), seed: Some(text.clone().into()), ..spec() };
        spec.base.path = text.clone().into();
        spec.nic = spec.nic.map(|nic| NicSpec { tap: text.clone(), ..nic });
        let line = arguments(&spec, &DESCRIPTORS);
        prop_assert!(line.iter().all(|argument| !argument.contains(&text)));
    }
}

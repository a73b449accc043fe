//! Pins that the disks which the header writer makes are what QEMU takes them for: judged by `qemu-img` and `qemu-io`.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use otherix_image::inspect::Format;
use otherix_image::overlay::{Base, DISK_MAX, Overlay, OverlayError, create, grow, read};
use otherix_testkit::{TempDir, tempdir};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A base with 1 MiB of sevens at its start.
struct Fixture {
    folder: TempDir,
    base: Base,
    disk: PathBuf,
}

impl Fixture {
    fn new(format: Format) -> Self {
        let folder = tempdir().unwrap();
        let path = folder.path().join("base");
        run("qemu-img", &["create", "-q", "-f", format.name(), text(&path), "8M"]);
        run("qemu-io", &["-f", format.name(), "-c", "write -P 7 0 1M", text(&path)]);
        let disk = folder.path().join("disk");
        Self { folder, base: Base { path, format }, disk }
    }

    /// Runs commands of `qemu-io`, which fail if a pattern is not what is read.
    fn io(&self, commands: &[&str]) -> String {
        let mut arguments = vec!["-f", "qcow2"];
        for command in commands {
            arguments.extend(["-c", command]);
        }
        arguments.push(text(&self.disk));
        let output = run("qemu-io", &arguments);
        assert!(!output.contains("failed"), "{output}");
        output
    }

    fn check(&self) {
        run("qemu-img", &["check", "-q", "-f", "qcow2", text(&self.disk)]);
    }

    fn info(&self) -> Value {
        serde_json::from_str(&run("qemu-img", &["info", "-f", "qcow2", "--output=json", text(&self.disk)])).unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn qemu_reads_and_writes_it() {
    for format in [Format::Qcow2, Format::Raw] {
        let fixture = Fixture::new(format);
        let original = fs::read(&fixture.base.path).unwrap();
        create(&fixture.disk, &fixture.base, 8 * MIB, 64 * MIB).unwrap();
        fixture.check();
        let info = fixture.info();
        let shown = ["virtual-size", "backing-filename", "backing-filename-format"].map(|key| info.get(key).cloned());
        let path = Value::from(text(&fixture.base.path));
        assert_eq!(shown, [Some((64 * MIB).into()), Some(path), Some(format.name().into())]);
        fixture.io(&["read -P 7 0 1M", "read -P 0 1M 63M", "write -P 9 512k 1M", "write -P 5 63M 1M"]);
        fixture.io(&["read -P 7 0 512k", "read -P 9 512k 1M", "read -P 5 63M 1M", "read -P 0 2M 61M"]);
        fixture.check();
        assert_eq!(fs::read(&fixture.base.path).unwrap(), original, "the image is not written");
        // QEMU leaves the header as it was.
        assert_eq!(read(&fixture.disk).unwrap(), Overlay { size: 64 * MIB, base: fixture.base.clone() });
        assert_eq!(fs::metadata(&fixture.disk).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(fixture.folder.path()).unwrap().count(), 2);
    }
}

#[test]
fn it_grows() {
    let fixture = Fixture::new(Format::Qcow2);
    create(&fixture.disk, &fixture.base, 8 * MIB, 8 * MIB).unwrap();
    fixture.io(&["write -P 9 7M 1M"]);
    for size in [8 * MIB, 8 * MIB + 512, 3 << 30, DISK_MAX] {
        grow(&fixture.disk, size).unwrap();
        fixture.check();
        assert_eq!(fixture.info().get("virtual-size"), Some(&size.into()));
        let last = format!("{} 512", size - 512);
        fixture.io(&["read -P 9 7M 1023k", &format!("write -P 3 {last}"), &format!("read -P 3 {last}")]);
        fixture.check();
    }
    let smaller = grow(&fixture.disk, 3 << 30);
    assert!(matches!(smaller, Err(OverlayError::Shrink { current: DISK_MAX, .. })), "{smaller:?}");
    assert!(matches!(grow(&fixture.disk, DISK_MAX + 512), Err(OverlayError::Size(_))));
}

#[test]
fn what_is_refused() {
    let fixture = Fixture::new(Format::Raw);
    for size in [0, 511, 8 * MIB + 1, DISK_MAX + 512, u64::MAX] {
        assert!(matches!(create(&fixture.disk, &fixture.base, 0, size), Err(OverlayError::Size(_))), "{size}");
    }
    let smaller = create(&fixture.disk, &fixture.base, 8 * MIB, 4 * MIB);
    assert!(matches!(smaller, Err(OverlayError::Shrink { .. })));
    for path in ["relative", &format!("/{}", "a".repeat(1023))] {
        let base = Base { path: path.into(), format: Format::Raw };
        assert!(matches!(create(&fixture.disk, &base, 0, MIB), Err(OverlayError::BasePath(_))));
    }
    assert!(!fixture.disk.exists());
    fs::write(&fixture.disk, "someone's").unwrap();
    let exists = create(&fixture.disk, &fixture.base, 8 * MIB, 8 * MIB).unwrap_err();
    let OverlayError::Io { source, .. } = exists else { unreachable!("{exists}") };
    assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&fixture.disk).unwrap(), "someone's");
    assert_eq!(fs::read_dir(fixture.folder.path()).unwrap().count(), 2);
}

/// `qemu-img resize` without `-f` would resize what a guest has made its disk look like.
#[test]
fn only_disks_of_ours_grow() {
    let fixture = Fixture::new(Format::Raw);
    let foreign = |path: &Path| matches!(grow(path, 64 * MIB), Err(OverlayError::Foreign(_)));
    assert!(foreign(&fixture.base.path));
    let other = fixture.folder.path().join("other");
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", text(&fixture.base.path), text(&other)]);
    assert!(foreign(&other));
    create(&fixture.disk, &fixture.base, 8 * MIB, 8 * MIB).unwrap();
    let original = fs::read(&fixture.disk).unwrap();
    // Any other header: a data file, another backing file's position, a format that is not known.
    for at in [7, 15, 19, 23, 35, 63, 79, 99, 103, 115, 130, 60_000] {
        let mut changed = original.clone();
        *changed.get_mut(at).unwrap() ^= 4;
        fs::write(&other, changed).unwrap();
        assert!(foreign(&other), "{at}");
    }
    std::os::unix::fs::symlink(&fixture.disk, fixture.folder.path().join("link")).unwrap();
    assert!(matches!(grow(&fixture.folder.path().join("link"), 64 * MIB), Err(OverlayError::Io { .. })));
    grow(&fixture.disk, 64 * MIB).unwrap();
}

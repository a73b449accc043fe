//! Pins which files are accepted as images:
//! - qcow2 images of every variant that `qemu-img` makes without another file, and raw disks with a boot signature;
//! - nothing that names another file or server, is another format, or refers to what is not within the file;
//! - each refusal has a reason: the same files lead `qemu-img` astray (`astray.rs`);
//! - no file makes the check panic, or read more than its tables (`properties.rs`).
//!
//! Images are made by `qemu-img`, and altered where it makes none of the kind.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod accepted;
mod altered;
mod astray;
mod properties;
mod refused;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use otherix_image::inspect::{ImageInfo, InspectError, inspect};
use otherix_testkit::{TempDir, tempdir};

const MAX: u64 = 64 << 30;
const MIB: u64 = 1 << 20;

/// A folder in which `qemu-img` makes files.
struct Workshop {
    folder: TempDir,
}

impl Workshop {
    fn new() -> Self {
        Self { folder: tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command line in the folder, and returns what it printed. The words have no spaces in them.
    #[track_caller]
    fn run(&self, command_line: &str) -> String {
        let mut words = command_line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        let output = command.args(words).current_dir(self.folder.path()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{command_line}` failed: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A qcow2 image of 64 MiB with data in it, by `qemu-img` with these options.
    #[track_caller]
    fn qcow2(&self, name: &str, options: &str) -> PathBuf {
        self.run(&format!("qemu-img create -q -f qcow2 {options} {name} 64M"));
        let written = Command::new("qemu-io")
            .args(["-f", "qcow2", "-c", "write -P 7 0 1M", "-c", "write -P 9 40M 1M", "-c", "write -z 8M 1M"])
            .arg(self.path(name))
            .output()
            .unwrap();
        assert!(written.status.success(), "{written:?}");
        self.path(name)
    }

    /// A raw disk of this size with the boot signature of an MBR.
    fn raw(&self, name: &str, size: u64) -> PathBuf {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        bytes[510..512].copy_from_slice(b"\x55\xaa");
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
}

fn check(path: &Path) -> Result<ImageInfo, InspectError> {
    inspect(File::open(path).unwrap(), MAX)
}

/// The name of the variant, for comparisons.
fn kind(result: &Result<ImageInfo, InspectError>) -> String {
    let shown = format!("{result:?}");
    let inner = shown.strip_prefix("Err(").unwrap_or(&shown);
    inner.split([' ', '(', ')', '{']).next().unwrap().to_owned()
}

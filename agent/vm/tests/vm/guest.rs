//! A VM of a test, in a temporary folder. It is gone after the test, also after a failed one.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use otherix_image::inspect::Format;
use otherix_image::overlay;
use otherix_runtime::SystemRuntime;
use otherix_testkit::wait::wait_for_blocking;
use otherix_vm::folder::VmFolder;
use otherix_vm::process::{self, Found, Launcher, VmProcess};
use otherix_vm::qmp::QmpClient;
use otherix_vm::spec::{Accelerator, BaseImage, FIRST_USER, ImageFormat, LaunchSpec};

/// A guest of software on a busy machine takes its time.
pub(crate) const BOOT: Duration = Duration::from_secs(90);
/// For what QEMU does by itself.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What the shell of the tiny guest writes when it is ready for a line.
pub(crate) const PROMPT: &str = "/ # \u{1b}[6n";

pub(crate) struct TestVm {
    _temporary: tempfile::TempDir,
    pub(crate) folder: VmFolder,
    pub(crate) spec: LaunchSpec,
}

/// The image that `ops/setup` builds.
pub(crate) fn tiny_image() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/image/tiny.img");
    path.canonicalize().unwrap_or_else(|_| panic!("`{}` is missing: run `ops/setup`", path.display()))
}

pub(crate) fn launcher() -> Launcher {
    Launcher { program: env!("CARGO_BIN_EXE_otherix-vm-launch").into(), arguments: Vec::new() }
}

impl TestVm {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        // Longer than the path of a socket may be.
        let folder = VmFolder::new(temporary.path().join("vm".repeat(60)));
        folder.create().unwrap();
        let image = tiny_image();
        let base = overlay::Base { path: image.clone(), format: Format::Raw };
        let size = image.metadata().unwrap().len();
        overlay::create(&folder.disk(), &base, size, 1 << 30).unwrap();
        let spec = LaunchSpec {
            vm: SystemRuntime::shared().uuid_v7(),
            generation: 7,
            program: "/usr/bin/qemu-system-x86_64".into(),
            accelerator: Accelerator::Tcg,
            vcpus: 1,
            memory_mib: 160,
            disk: folder.disk(),
            base: BaseImage { path: image, format: ImageFormat::Raw },
            seed: None,
            nic: None,
            user: FIRST_USER + u32::from(std::process::id() as u16),
            cgroup: None,
        };
        Self { _temporary: temporary, folder, spec }
    }

    pub(crate) fn start(&self) -> VmProcess {
        let Found::Free(lock) = process::find(&self.folder).unwrap() else { panic!("it has a process already") };
        process::start(lock, &launcher(), &self.spec).unwrap()
    }

    /// As an agent after its restart.
    pub(crate) fn found(&self) -> VmProcess {
        wait_for_blocking(SOON, "the process", || match process::find(&self.folder).unwrap() {
            Found::Running(process) => Ok(process),
            other @ (Found::Free(_) | Found::Changing) => Err(other),
        })
    }

    pub(crate) async fn connect(&self, process: &VmProcess) -> QmpClient {
        match QmpClient::connect(&self.folder.qmp_socket(), process.pid(), SOON).await {
            Ok(client) => client,
            Err(error) => panic!("{error:?}; QEMU wrote: {}", self.messages()),
        }
    }

    pub(crate) fn messages(&self) -> String {
        std::fs::read_to_string(self.folder.messages()).unwrap_or_default()
    }

    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.console_log()).unwrap_or_default()).into_owned()
    }

    pub(crate) fn wait_for_console(&self, text: &str) {
        wait_for_blocking(BOOT, text, || {
            let console = self.console();
            if console.contains(text) { Ok(()) } else { Err(format!("{console}\nQEMU: {}", self.messages())) }
        });
    }

    /// Types a command at the shell's prompt: what comes while it sets up the terminal is dropped.
    pub(crate) fn type_command(&self, console: &mut UnixStream, command: &str) {
        wait_for_blocking(BOOT, "the prompt", || {
            let text = self.console();
            if text.ends_with(PROMPT) { Ok(()) } else { Err(text) }
        });
        console.write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    /// Connects to the guest's console. What it writes is read and dropped: else QEMU would stop the guest after some
    /// hundred characters.
    pub(crate) fn console_stream(&self) -> UnixStream {
        use std::os::fd::AsRawFd as _;
        let folder = std::fs::File::open(self.folder.path()).unwrap();
        let stream = UnixStream::connect(format!("/proc/self/fd/{}/console.sock", folder.as_raw_fd())).unwrap();
        let mut output = stream.try_clone().unwrap();
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        stream
    }
}

impl Drop for TestVm {
    fn drop(&mut self) {
        if let Ok(Found::Running(process)) = process::find(&self.folder) {
            let _gone = process.kill();
            let _ended = process.wait(SOON);
        }
    }
}

/// The fields of `/proc/<pid>/status`.
pub(crate) fn status_field(pid: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no field {name}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

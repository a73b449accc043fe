//! The relay, with a server in place of QEMU.

use otherix_runtime::SystemRuntime;
use otherix_testkit::wait::wait_for;
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

struct Setup {
    _temporary: tempfile::TempDir,
    folder: VmFolder,
    console: Console,
}

fn setup() -> Setup {
    let temporary = tempfile::tempdir().unwrap();
    let folder = VmFolder::new(temporary.path());
    let console = Console::start(&SystemRuntime::shared(), folder.clone(), Arc::new(ConsoleLog::new(&folder)));
    Setup { _temporary: temporary, folder, console }
}

impl Setup {
    async fn qemu(&self) -> UnixStream {
        std::fs::remove_file(self.folder.console_socket()).ok();
        let listener = UnixListener::bind(self.folder.console_socket()).unwrap();
        timeout(SOON, listener.accept()).await.unwrap().unwrap().0
    }
}

async fn read(output: &mut Output, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend(timeout(SOON, output.next()).await.unwrap().unwrap().iter());
    }
    bytes
}

#[tokio::test]
async fn all_readers_get_all_and_one_writes() {
    let setup = setup();
    let (mut one, mut two) = (setup.console.read(), setup.console.read());
    let mut qemu = setup.qemu().await;
    qemu.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut one, 5).await, b"hello");
    assert_eq!(read(&mut two, 5).await, b"hello");

    let input = setup.console.write().unwrap();
    assert_eq!(setup.console.write().unwrap_err(), InUseError);
    input.type_bytes(b"ls\n").await.unwrap();
    let mut typed = [0; 3];
    timeout(SOON, qemu.read_exact(&mut typed)).await.unwrap().unwrap();
    assert_eq!(&typed, b"ls\n");
    drop(input);
    setup.console.write().unwrap();

    // The next process of the VM.
    drop(qemu);
    let mut qemu = setup.qemu().await;
    qemu.write_all(b"again").await.unwrap();
    assert_eq!(read(&mut one, 5).await, b"again");
}

#[tokio::test]
async fn slow_readers_do_not_stop_the_guest() {
    let setup = setup();
    let (mut slow, mut fast) = (setup.console.read(), setup.console.read());
    let mut qemu = setup.qemu().await;
    // More than all buffers between the guest and a reader.
    let total = 8 << 20;
    let piece = [b'x'; PIECE_MAX];
    let write = async {
        for _ in 0..total / piece.len() {
            qemu.write_all(&piece).await.unwrap();
        }
    };
    let (_, received) = timeout(SOON, async { tokio::join!(write, read(&mut fast, total)) }).await.unwrap();
    assert_eq!(received.len(), total);
    // What was queued arrives, then the end, rather than output with a gap.
    let mut queued = 0;
    while let Some(piece) = timeout(SOON, slow.next()).await.unwrap() {
        queued += piece.len();
    }
    assert!((1..=READER_QUEUE * PIECE_MAX).contains(&queued), "{queued}");
}

#[tokio::test]
async fn a_guest_that_takes_no_input_is_still_read() {
    let setup = setup();
    let mut output = setup.console.read();
    let mut qemu = setup.qemu().await;
    let input = setup.console.write().unwrap();
    let all = vec![b'y'; 4 << 20];
    assert!(timeout(Duration::from_millis(300), input.type_bytes(&all)).await.is_err(), "it was taken");
    qemu.write_all(b"output").await.unwrap();
    assert_eq!(read(&mut output, 6).await, b"output");
}

#[tokio::test]
async fn log_is_bounded_while_it_is_relayed() {
    let setup = setup();
    let mut qemu = setup.qemu().await;
    std::fs::write(setup.folder.console_log(), vec![b'x'; 3 << 20]).unwrap();
    qemu.write_all(b"x").await.unwrap();
    wait_for(SOON, "the log", async || std::fs::metadata(setup.folder.console_log()).unwrap().len() == 0).await;
    assert_eq!(std::fs::metadata(setup.folder.older_console_log()).unwrap().len(), log::LOG_MAX);
}

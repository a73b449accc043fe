//! A network namespace for one test, and queries in it with `ip`. The original namespace is not changed, and the new
//! one has no name: the kernel frees it with its last thread and process.

use std::cell::Cell;
use std::process::Command;

use rustix::thread::UnshareFlags;
use serde_json::Value;

thread_local! {
    /// Whether this thread has entered a namespace.
    static HAS_ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Moves the calling thread into a new network namespace that has only `lo`, which is up.
///
/// Threads and processes that it starts afterwards are in the namespace too, so call it first: before building a
/// runtime, or at the top of a `#[tokio::test]` (whose runtime runs on the test's own thread). `/sys/class/net` keeps
/// showing the old one.
///
/// # Panics
/// Without root: kernel tests must not pass without running. Also if the thread is in a namespace of a test already:
/// threads that its runtime keeps for blocking work would stay in the earlier one.
pub fn enter_new() {
    assert!(!HAS_ENTERED.replace(true), "one test has one network namespace: write a test of its own for the next one");
    enter_another();
}

/// As [`enter_new`], in a thread that has been in another namespace. Threads that it started there stay there, and so
/// does the blocking work of its runtime, which reads `/proc/sys/net` of the earlier one: use it only if what comes
/// next in this namespace are other processes, or if those threads are moved too.
///
/// # Panics
/// Without root.
pub fn enter_another() {
    if let Err(error) = unshare_network() {
        panic!("cannot create a network namespace: {error}; the kernel tests need root");
    }
    sh("ip link set dev lo up");
}

#[expect(unsafe_code, reason = "`unshare` is unsafe, for a flag that is not used here")]
fn unshare_network() -> rustix::io::Result<()> {
    // SAFETY: the hazard is unsharing the file descriptor table (`FILES`); `NEWNET` does not change it.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

/// Runs `script` with `sh -e` in this thread's namespace and returns its standard output.
///
/// # Panics
/// If it fails, with its output.
#[track_caller]
pub fn sh(script: &str) -> String {
    run(Command::new("sh").args(["-e", "-c", script]), script)
}

/// Returns the output of `ip -j <args>` in this thread's namespace, such as `ip_json(&["-d", "link", "show",
/// "br-app"])`.
///
/// # Panics
/// If `ip` fails or prints no JSON.
#[track_caller]
pub fn ip_json(args: &[&str]) -> Value {
    let what = format!("ip -j {}", args.join(" "));
    let output = run(Command::new("ip").arg("-j").args(args), &what);
    if output.trim().is_empty() {
        return Value::Array(Vec::new()); // some objects of `ip` print nothing instead of an empty list
    }
    match serde_json::from_str(&output) {
        Ok(value) => value,
        Err(error) => panic!("`{what}` printed no JSON: {error}\n{output}"),
    }
}

/// Returns one link of `ip -d -j link show`, or `None` if there is no such device.
///
/// # Panics
/// If `ip` fails or prints no JSON.
#[track_caller]
#[must_use]
pub fn link(name: &str) -> Option<Value> {
    let links = ip_json(&["-d", "link", "show"]);
    let links = links.as_array().expect("`ip -j` prints a list");
    let mut links = links.iter();
    let link = links.find(|link| link.get("ifname").and_then(Value::as_str) == Some(name));
    link.cloned()
}

#[track_caller]
fn run(command: &mut Command, what: &str) -> String {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("cannot start `{what}`: {error}; `make setup` installs what the tests need"),
    };
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        panic!("`{what}` failed, {}\n{stdout}{stderr}", output.status);
    }
    stdout
}

//! An independent NATS client: runs scripts of tests with `nats-py`, in the environment that `ops/setup` created in
//! `.tools/venv`.
//!
//! Cancel-safety: the interpreter is killed when the future is dropped.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// Time-out of a script, far above what any needs; a script that waits for a message should use a shorter one.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(60);

/// The interpreter that `ops/setup` installed.
pub fn interpreter() -> PathBuf {
    Path::new(crate::nats::PROJECT).join(".tools/venv/bin/python")
}

/// The folder of modules that scripts may import: `creds`, and what nats-py needs to connect with a credentials file.
/// To be set as `PYTHONPATH`.
pub fn modules() -> PathBuf {
    Path::new(crate::nats::PROJECT).join("ops/testkit/python")
}

/// Runs `script` (source text, for example from `include_str!`) with `args` in `sys.argv[1:]` and returns what it
/// printed.
///
/// # Panics
/// If it fails, with its standard error, or if it takes longer than 60 s.
pub async fn nats_py(script: &str, args: &[&str]) -> String {
    let interpreter = interpreter();
    let mut command = Command::new(&interpreter);
    command.arg("-c").arg(script).args(args).env("PYTHONPATH", modules()).stdin(Stdio::null()).kill_on_drop(true);
    let running = command.output();
    let output = match timeout(SCRIPT_DEADLINE, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!("cannot start `{}`: {error}; run `make setup`", interpreter.display()),
        Err(_elapsed) => panic!("a nats-py script has not ended within {SCRIPT_DEADLINE:?}"),
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        panic!("a nats-py script failed, {}:\n{stderr}", output.status);
    }
    String::from_utf8(output.stdout).expect("a script prints UTF-8")
}

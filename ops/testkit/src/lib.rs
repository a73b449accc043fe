//! What otherix's tests share. Test support only: no product code depends on it, and a failed assumption panics.
//!
//! - [`nats`]: a real `nats-server` for one test, on a free port, that can be killed and started again
//! - [`netns`]: a network namespace of the test's own, which needs no cleaning up
//! - [`wait`]: waiting for a condition with a deadline, never for a fixed time
//! - [`python`]: an independent NATS client
//! - [`cases`]: folders with `current.json`, `desired.json`, `expected.json`
//! - [`generated`]: checked-in files that a test keeps up to date
#![expect(clippy::expect_used, clippy::panic, reason = "test support: a failed assumption is a failed test")]

mod process;

pub mod cases;
pub mod generated;
pub mod nats;
pub mod netns;
pub mod python;
pub mod wait;

/// Folders and files that go when they are dropped.
pub use tempfile::{NamedTempFile, TempDir, tempdir};

/// True if this run is to write expected and generated files anew instead of comparing them (`OTHERIX_GENERATE=1`).
fn generating() -> bool {
    std::env::var_os("OTHERIX_GENERATE").is_some_and(|value| value == "1")
}

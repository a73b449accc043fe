//! Test support shared by the workspace. No product code depends on it, and a failed assumption panics.
//!
//! - [`nats`]: a real `nats-server` for one test, on a free port, that can be killed and restarted
//! - [`netns`]: a network namespace for one test, removed with it
//! - [`wait`]: waits for a condition with a deadline
//! - [`python`]: an independent NATS client
//! - [`cases`]: case folders with `current.json`, `desired.json`, `expected.json`
//! - [`generated`]: checked-in files that a test keeps up to date
//! - [`lab_name`]: names of labs
#![expect(clippy::expect_used, clippy::panic, reason = "test support: a failed assumption is a failed test")]

mod process;

pub mod cases;
pub mod generated;
pub mod lab_name;
pub mod nats;
pub mod netns;
pub mod python;
pub mod wait;

/// Temporary folders and files, removed on drop.
pub use tempfile::{NamedTempFile, TempDir, tempdir};

/// True if expected and generated files are to be written instead of compared (`OTHERIX_GENERATE=1`).
fn generating() -> bool {
    std::env::var_os("OTHERIX_GENERATE").is_some_and(|value| value == "1")
}

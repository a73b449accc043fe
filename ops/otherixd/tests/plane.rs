//! Promises of the whole control plane, the real program from outside: requests are answered and refused as agreed, nothing
//! acknowledged is lost or doubled whatever is killed, the stream is the journal's copy, and no process is left behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed assumption is a failed test")]

#[path = "plane/daemon.rs"]
mod daemon;
#[path = "plane/earlier_version.rs"]
mod earlier_version;
#[path = "plane/killed.rs"]
mod killed;
#[path = "plane/life.rs"]
mod life;
#[path = "plane/mesh.rs"]
mod mesh;
#[path = "plane/presence.rs"]
mod presence;
#[path = "plane/read_models.rs"]
mod read_models;
#[path = "plane/recovery.rs"]
mod recovery;
#[path = "plane/removal.rs"]
mod removal;
#[path = "plane/requests.rs"]
mod requests;
#[path = "plane/trouble.rs"]
mod trouble;
#[path = "plane/vms.rs"]
mod vms;

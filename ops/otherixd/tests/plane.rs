//! Properties of the whole control plane, tested from outside on the real program: requests are answered and refused as
//! specified, nothing acknowledged is lost or duplicated whatever is killed, the stream is a copy of the journal, and
//! no process is left behind.
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

//! Properties of the whole control plane, tested from outside on the real program: requests are answered and refused as
//! specified, nothing acknowledged is lost or duplicated by SIGKILL, the stream is a copy of the journal, and no
//! process is left behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed assumption is a failed test")]

#[path = "control_plane/accounts/mod.rs"]
mod accounts;
#[path = "control_plane/backup/mod.rs"]
mod backup;
#[path = "control_plane/changes.rs"]
mod changes;
#[path = "control_plane/daemon.rs"]
mod daemon;
#[path = "control_plane/earlier_version.rs"]
mod earlier_version;
#[path = "control_plane/examples.rs"]
mod examples;
#[path = "control_plane/failures.rs"]
mod failures;
#[path = "control_plane/hostile.rs"]
mod hostile;
#[path = "control_plane/lifecycle.rs"]
mod lifecycle;
#[path = "control_plane/log.rs"]
mod log;
#[path = "control_plane/mesh.rs"]
mod mesh;
#[path = "control_plane/moves.rs"]
mod moves;
#[path = "control_plane/observed.rs"]
mod observed;
#[path = "control_plane/own_nats/mod.rs"]
mod own_nats;
#[path = "control_plane/presence.rs"]
mod presence;
#[path = "control_plane/raw_client.rs"]
mod raw_client;
#[path = "control_plane/read_models.rs"]
mod read_models;
#[path = "control_plane/recovery.rs"]
mod recovery;
#[path = "control_plane/removal.rs"]
mod removal;
#[path = "control_plane/requests.rs"]
mod requests;
#[path = "control_plane/retention.rs"]
mod retention;
#[path = "control_plane/sigkill.rs"]
mod sigkill;
#[path = "control_plane/state.rs"]
mod state;
#[path = "control_plane/state_losses.rs"]
mod state_losses;
#[path = "control_plane/users.rs"]
mod users;
#[path = "control_plane/verifiers.rs"]
mod verifiers;
#[path = "control_plane/vms.rs"]
mod vms;

//! What the NATS server permits, refuses and ignores, with the accounts of a real control plane, tried with raw
//! clients. Keys of the control plane are used to sign further users of each role, as it signs them itself.

pub(crate) mod attacks;
pub(crate) mod consumers;
mod forged;
mod matrix;
mod refusals;
pub(crate) mod users;

use otherix_identity::Creds;

use crate::daemon::OtherixdProcess;

/// The roles with the accounts of their users, in the order of the matrix.
const ROLES: [(&str, &str); 7] = [
    ("admin", "clients"),
    ("operator", "clients"),
    ("developer", "clients"),
    ("viewer", "clients"),
    ("node", "nodes"),
    ("node-join", "nodes"),
    // People, in the account of the buckets.
    ("state-reader", "state"),
];

/// Another user of a role.
fn user(daemon: &OtherixdProcess, role: &str) -> Creds {
    let (_, account) = ROLES.into_iter().find(|(name, _)| *name == role).unwrap();
    daemon.sign(role, account)
}

//! `otherix-agent status`: what the state folder tells of this node, whether or not its agent is running. Only reads.
//!
//! The agent writes to `problem.json` what is wrong with the identity of the node, until its next start.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use otherix_schemas::error::Causes;
use otherix_schemas::id::{ClusterId, NodeId};
use otherix_schemas::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::connection::{ConnectionError, ConnectionSettings};
use crate::contradiction::{self, Contradiction};
use crate::identity::{self, IdentityError};
use crate::left;
use crate::release::{self, HeldDeletions, ReleaseError};
use crate::withdrawn::{WithdrawnNetwork, WithdrawnNetworks};
use crate::witness::{self, LogContradiction};

const PROBLEM: &str = "problem.json";

/// What is wrong with the identity of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// When it was noticed; `None` if the clock was not set.
    pub at: Option<Timestamp>,
    pub text: String,
}

/// What the state folder tells of a node.
#[derive(Clone, Debug)]
pub struct Status {
    pub node_id: NodeId,
    /// How it reaches its control plane; `None` if that is set on the agent's command line only.
    pub connection: Option<ConnectionSettings>,
    pub incarnation: u64,
    /// The process id of the agent that uses the folder.
    pub pid: Option<u32>,
    /// The cluster that this agent has joined since it started.
    pub joined: Option<ClusterId>,
    pub held: Option<HeldDeletions>,
    /// The networks that were withdrawn from this node.
    pub withdrawn: WithdrawnNetworks,
    pub problem: Option<Problem>,
    pub contradiction: Option<Contradiction>,
    /// What contradicts the transparency log as this node knows it.
    pub log_contradiction: Option<LogContradiction>,
    /// The agent removes all devices, because an operator has told that the node was removed.
    pub has_left: bool,
}

/// The errors of `otherix-agent status`.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error("`{0}` is not the state folder of an otherix-agent")]
    NoAgent(PathBuf),
    #[error("cannot read the identity of the node")]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Held(#[from] ReleaseError),
    #[error("cannot read which networks were withdrawn from this node")]
    Withdrawn(#[source] io::Error),
    #[error("cannot read `{PROBLEM}` in the state folder")]
    Problem(#[source] io::Error),
    #[error("cannot read `contradiction.json` in the state folder")]
    Contradiction(#[source] io::Error),
    #[error("cannot read `witness.json` in the state folder")]
    Witness(#[source] io::Error),
}

/// Writes what is wrong, in place of what was before.
pub fn note(folder: &Path, problem: &Problem) {
    let written = serde_json::to_vec(problem).map_err(io::Error::from);
    if let Err(error) = written.and_then(|text| files::replace(&folder.join(PROBLEM), &text)) {
        tracing::error!(error = %Causes(&error), file = PROBLEM, "cannot write what is wrong");
    }
}

/// Removes what was wrong before this start.
///
/// # Errors
/// If the file cannot be removed.
pub fn clear(folder: &Path) -> io::Result<()> {
    files::remove(&folder.join(PROBLEM))
}

/// Reads the status of the agent with this state folder.
///
/// # Errors
/// [`StatusError`] if the folder is not that of an agent, or a file cannot be read.
pub fn read(folder: &Path) -> Result<Status, StatusError> {
    let (node_id, incarnation) = identity::stored(folder)?.ok_or_else(|| StatusError::NoAgent(folder.to_owned()))?;
    let pid = identity::claimed_by(folder);
    let problem = files::read(&folder.join(PROBLEM)).map_err(StatusError::Problem)?;
    let problem = problem.map(|text| serde_json::from_slice(&text)).transpose();
    Ok(Status {
        node_id,
        connection: ConnectionSettings::read(folder)?,
        incarnation,
        pid,
        joined: pid.and_then(|_| identity::joined(folder)),
        held: release::held(folder)?,
        withdrawn: WithdrawnNetworks::read(folder).map_err(StatusError::Withdrawn)?,
        problem: problem.map_err(|error| StatusError::Problem(error.into()))?,
        contradiction: contradiction::read(folder).map_err(StatusError::Contradiction)?,
        log_contradiction: witness::read(folder)
            .map_err(StatusError::Witness)?
            .and_then(|file| file.contradiction.or(file.given_up)),
        has_left: left::has_left(folder),
    })
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node_id, connection, incarnation, pid, joined, held, withdrawn, problem, has_left, .. } = self;
        let Self { contradiction, log_contradiction, .. } = self;
        writeln!(f, "node:         {node_id}")?;
        if let Some(ConnectionSettings { server, name, .. }) = connection {
            writeln!(f, "name:         {name}")?;
            writeln!(f, "server:       {server}")?;
        }
        writeln!(f, "incarnation:  {incarnation}")?;
        match pid {
            Some(pid) => writeln!(f, "agent:        running, process {pid}")?,
            None => writeln!(f, "agent:        not running")?,
        }
        if *has_left {
            writeln!(f, "left:         yes (`otherix-agent leave`): the agent removes all devices of otherix")?;
        }
        match (joined, pid) {
            (Some(cluster), _) => writeln!(f, "cluster:      {cluster}")?,
            (None, Some(_)) => writeln!(f, "cluster:      not joined since the agent started")?,
            (None, None) => {
                if let Some(ConnectionSettings { cluster, .. }) = connection {
                    writeln!(f, "cluster:      {cluster}")?;
                }
            }
        }
        if let Some(held) = held {
            let HeldDeletions { lineage, devices } = held;
            writeln!(f, "held back:    removal of {} devices, until {lineage} is released", devices.len())?;
        }
        for (id, WithdrawnNetwork { name, withdrawal }) in &withdrawn.networks {
            writeln!(f, "withdrawn:    network {name} ({id}): {}", withdrawal.reason)?;
        }
        for (at, text) in contradiction
            .iter()
            .map(|it| (it.at, &it.text))
            .chain(log_contradiction.iter().map(|it| (it.at, &it.text)))
            .chain(problem.iter().map(|it| (it.at, &it.text)))
        {
            let at = at.map_or_else(|| "unknown time".to_owned(), |at| at.to_string());
            writeln!(f, "problem:      {at}: {text}")?;
        }
        Ok(())
    }
}

//! The removal of a link, an action of all kinds.

use std::fmt;

use otherix_schemas::id::ClusterId;
use serde::Serialize;

use super::step::StepAction;
use super::subject::Subject;
use super::survey::DeviceSurvey;
use crate::kernel::{Kernel, KernelError, message};
use crate::model::link::Link;
use crate::model::owner::Owner;

/// `ENODEV`: there is no such link.
const ENODEV: i32 = 19;

/// Removes a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemoveLink {
    pub index: u32,
    pub name: String,
    /// The name of the device kind.
    #[serde(skip)]
    pub kind: &'static str,
    /// `IFLA_INFO_KIND`.
    #[serde(skip)]
    pub link_kind: String,
}

impl RemoveLink {
    /// Returns the action that removes this link.
    pub fn of(survey: &DeviceSurvey<'_>, link: &Link) -> Self {
        let kind = survey.kind_of(link).map_or("link", |(kind, _)| kind.name());
        let Link { index, name, kind: link_kind, .. } = link;
        Self { index: *index, name: name.clone(), kind, link_kind: link_kind.clone() }
    }

    /// Whether the device still exists. It may have changed or got a port since it was observed: that is the error.
    fn exists(&self, kernel: &mut Kernel, cluster: ClusterId) -> Result<bool, String> {
        let found = match kernel.request(message::get_link(self.index)) {
            Err(error) if error.errno() == Some(ENODEV) => return Ok(false),
            found => found.map_err(|error| error.to_string())?.links,
        };
        if !found.iter().all(|link| link.kind == self.link_kind && link.name == self.name) {
            return Err("it has just been changed".to_owned());
        }
        if !found.iter().any(Link::is_bridge) {
            return Ok(true);
        }
        let is_ours = |link: &Link| {
            let owner = link.alias.as_deref().and_then(|alias| alias.parse::<Owner>().ok());
            owner.is_some_and(|owner| owner.cluster == cluster)
        };
        let ports = kernel.request(message::get_ports(self.index)).map_err(|error| error.to_string())?.links;
        let foreign = ports.iter().find(|port| port.master == Some(self.index) && !is_ours(port));
        foreign.map_or(Ok(true), |port| Err(format!("it has got the port `{}`", port.name)))
    }

    fn remove(&self, kernel: &mut Kernel, cluster: ClusterId) -> Result<(), String> {
        if self.exists(kernel, cluster)? {
            kernel.request(message::delete_link(self.index)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl fmt::Display for RemoveLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, .. } = self;
        write!(f, "remove {name} ({index})")
    }
}

impl StepAction for RemoveLink {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn name(&self) -> &'static str {
        "remove"
    }

    fn subject(&self) -> Subject {
        Subject::Device(self.index)
    }

    fn is_removal(&self) -> bool {
        true
    }

    fn is_quick(&self) -> bool {
        false
    }

    fn is_limited(&self) -> bool {
        false
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let failed = |action: &Self, reason| KernelError::Remove { name: action.name.clone(), reason };
        let removed =
            actions.iter().map(|action| action.remove(kernel, cluster).map_err(|reason| failed(action, reason)));
        removed.collect()
    }
}

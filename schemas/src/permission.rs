//! Who may ask for what. The control plane checks this again, whatever NATS let through.

use crate::request::Request;
use crate::value::UserId;

/// What somebody is allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Look at networks.
    NetworkRead,
    /// Create and delete networks.
    NetworkManage,
    /// Look at VMs.
    VmRead,
    /// Create VMs.
    VmCreate,
    /// Delete VMs.
    VmDelete,
    /// Look at nodes.
    NodeRead,
    /// Remove nodes.
    NodeManage,
    /// Join and report as a node.
    NodeReport,
}

/// What somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// May do all that people do.
    Admin,
    /// A hypervisor's agent.
    Node,
}

impl Permission {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkRead => "network:read",
            Self::NetworkManage => "network:manage",
            Self::VmRead => "vm:read",
            Self::VmCreate => "vm:create",
            Self::VmDelete => "vm:delete",
            Self::NodeRead => "node:read",
            Self::NodeManage => "node:manage",
            Self::NodeReport => "node:report",
        }
    }
}

impl Role {
    /// The role of a user. There is one user for each role.
    pub fn of(user: &UserId) -> Option<Self> {
        match user.as_str() {
            "admin" => Some(Self::Admin),
            "node" => Some(Self::Node),
            _ => None,
        }
    }

    /// Whether the role has a permission.
    pub fn has(self, permission: Permission) -> bool {
        match permission {
            Permission::NetworkRead
            | Permission::NetworkManage
            | Permission::VmRead
            | Permission::VmCreate
            | Permission::VmDelete
            | Permission::NodeRead
            | Permission::NodeManage => self == Self::Admin,
            Permission::NodeReport => self == Self::Node,
        }
    }
}

impl Request {
    /// What it takes to make this request.
    pub fn permission(self) -> Permission {
        match self {
            Self::NetworkCreate | Self::NetworkDelete => Permission::NetworkManage,
            Self::NetworkGet | Self::NetworkFind | Self::NetworkList => Permission::NetworkRead,
            Self::VmCreate => Permission::VmCreate,
            Self::VmDelete => Permission::VmDelete,
            Self::VmGet | Self::VmFind | Self::VmList => Permission::VmRead,
            Self::NodeGet | Self::NodeFind | Self::NodeList => Permission::NodeRead,
            Self::NodeDelete => Permission::NodeManage,
            Self::NodeJoin | Self::NodeReport => Permission::NodeReport,
        }
    }
}

//! Roles and permissions. The control plane checks them for every request, in addition to what NATS permits.

use crate::value::UserId;

/// A permission; each request requires one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    NetworkRead,
    NetworkManage,
    VmRead,
    VmCreate,
    VmDelete,
    NodeRead,
    NodeManage,
    /// Join the cluster and report, as a node.
    NodeReport,
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Every permission of an operator.
    Admin,
    /// The permissions of a node's agent.
    Node,
}

impl Permission {
    /// The name on the wire.
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
    /// The role of a user; each role has one user.
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

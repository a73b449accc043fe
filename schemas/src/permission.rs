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
    /// Read stored events.
    EventRead,
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
            Self::EventRead => "event:read",
        }
    }
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Admin, Self::Node];

    /// The id of the user that has the role; each role has one.
    pub fn user(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Node => "node",
        }
    }

    /// The role of a user.
    pub fn of(user: &UserId) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.user() == user.as_str())
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
            Permission::EventRead => true,
        }
    }
}

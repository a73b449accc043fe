//! Roles and permissions: one table, [`Permission::grants`]. The publish permissions on NATS, the checks of the
//! services and `docs/roles.md` follow from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::request::Request;

/// A permission; each request requires one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    NetworkRead,
    NetworkManage,
    VmRead,
    VmCreate,
    VmUpdate,
    VmDelete,
    VmLifecycle,
    VmConsole,
    VmMove,
    NodeRead,
    NodeMaintenance,
    NodeManage,
    NodeJoin,
    NodeReport,
    ImageRead,
    EventRead,
    RefusalRead,
    AuditRead,
    ClusterRead,
    ClusterManage,
    UserSelf,
    UserRead,
    UserManage,
}

/// A set of permissions. Each user has one role; the nodes have roles of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything that people can do.
    Admin,
    /// Everything about VMs, and the maintenance of nodes.
    Operator,
    /// VMs of their own.
    Developer,
    /// Reading.
    Viewer,
    /// The agent of a node that has joined.
    Node,
    /// A machine that is about to join as a node.
    NodeJoin,
}

/// What a role may do with a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// The role lacks the permission.
    None,
    /// The role has it for resources that the caller owns.
    Own,
    /// The role has it for every resource.
    Any,
}

impl Permission {
    pub const ALL: [Self; 23] = [
        Self::NetworkRead,
        Self::NetworkManage,
        Self::VmRead,
        Self::VmCreate,
        Self::VmUpdate,
        Self::VmDelete,
        Self::VmLifecycle,
        Self::VmConsole,
        Self::VmMove,
        Self::NodeRead,
        Self::NodeMaintenance,
        Self::NodeManage,
        Self::NodeJoin,
        Self::NodeReport,
        Self::ImageRead,
        Self::EventRead,
        Self::RefusalRead,
        Self::AuditRead,
        Self::ClusterRead,
        Self::ClusterManage,
        Self::UserSelf,
        Self::UserRead,
        Self::UserManage,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkRead => "network:read",
            Self::NetworkManage => "network:manage",
            Self::VmRead => "vm:read",
            Self::VmCreate => "vm:create",
            Self::VmUpdate => "vm:update",
            Self::VmDelete => "vm:delete",
            Self::VmLifecycle => "vm:lifecycle",
            Self::VmConsole => "vm:console",
            Self::VmMove => "vm:move",
            Self::NodeRead => "node:read",
            Self::NodeMaintenance => "node:maintenance",
            Self::NodeManage => "node:manage",
            Self::NodeJoin => "node:join",
            Self::NodeReport => "node:report",
            Self::ImageRead => "image:read",
            Self::EventRead => "event:read",
            Self::RefusalRead => "refusal:read",
            Self::AuditRead => "audit:read",
            Self::ClusterRead => "cluster:read",
            Self::ClusterManage => "cluster:manage",
            Self::UserSelf => "user:self",
            Self::UserRead => "user:read",
            Self::UserManage => "user:manage",
        }
    }

    /// What it permits, on one line.
    pub fn summary(self) -> &'static str {
        match self {
            Self::NetworkRead => "see networks and their status",
            Self::NetworkManage => "create and delete networks",
            Self::VmRead => "see VMs and their NICs",
            Self::VmCreate => "create VMs, which the user then owns",
            Self::VmUpdate => "change VMs",
            Self::VmDelete => "delete VMs",
            Self::VmLifecycle => "start, stop, reboot, reset and pause VMs",
            Self::VmConsole => "use the console of VMs",
            Self::VmMove => "move VMs to other nodes",
            Self::NodeRead => "see nodes and their status",
            Self::NodeMaintenance => "cordon and drain nodes",
            Self::NodeManage => "remove nodes, and create join tokens",
            Self::NodeJoin => "redeem a join token",
            Self::NodeReport => "report and send heartbeats, as a node",
            Self::ImageRead => "see images",
            Self::EventRead => "read decisions and outcomes",
            Self::RefusalRead => "see commands that were refused",
            Self::AuditRead => "read events about users, too, and have durable consumers",
            Self::ClusterRead => "see the cluster's settings, and the schemas of its messages",
            Self::ClusterManage => "change the cluster's settings",
            Self::UserSelf => "see one's own user, and obtain its credential",
            Self::UserRead => "see all users",
            Self::UserManage => "create, change, revoke and delete users, and obtain their credentials",
        }
    }

    /// What each role may do with it, in the order of [`Role::ALL`].
    const fn grants(self) -> [Grant; Role::ALL.len()] {
        use Grant::{Any, None, Own};
        match self {
            //                                            admin operator developer viewer node node-join
            Self::NetworkRead
            | Self::VmRead
            | Self::NodeRead
            | Self::ImageRead
            | Self::RefusalRead
            | Self::ClusterRead
            | Self::UserSelf => [Any, Any, Any, Any, None, None],
            Self::EventRead => [Any, Any, Any, Any, Any, None],
            Self::VmCreate => [Any, Any, Any, None, None, None],
            Self::VmUpdate | Self::VmDelete | Self::VmLifecycle | Self::VmConsole => [Any, Any, Own, None, None, None],
            Self::VmMove | Self::NodeMaintenance | Self::UserRead | Self::AuditRead => {
                [Any, Any, None, None, None, None]
            }
            Self::NetworkManage | Self::NodeManage | Self::UserManage | Self::ClusterManage => {
                [Any, None, None, None, None, None]
            }
            Self::NodeReport => [None, None, None, None, Any, None],
            Self::NodeJoin => [None, None, None, None, None, Any],
        }
    }
}

impl Role {
    pub const ALL: [Self; 6] = [Self::Admin, Self::Operator, Self::Developer, Self::Viewer, Self::Node, Self::NodeJoin];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Developer => "developer",
            Self::Viewer => "viewer",
            Self::Node => "node",
            Self::NodeJoin => "node-join",
        }
    }

    /// What the role may do with a permission.
    pub fn grant(self, permission: Permission) -> Grant {
        let [admin, operator, developer, viewer, node, node_join] = permission.grants();
        match self {
            Self::Admin => admin,
            Self::Operator => operator,
            Self::Developer => developer,
            Self::Viewer => viewer,
            Self::Node => node,
            Self::NodeJoin => node_join,
        }
    }

    /// Whether the role has a permission, be it for the caller's own resources only.
    pub fn has(self, permission: Permission) -> bool {
        self.grant(permission) != Grant::None
    }

    /// The requests that the role has the permission for: those that its scope on NATS permits to publish.
    pub fn requests(self) -> impl Iterator<Item = Request> {
        Request::all().filter(move |request| self.has(request.permission))
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_permission_is_listed_once_and_some_role_has_it() {
        let names: BTreeSet<_> = Permission::ALL.into_iter().map(Permission::as_str).collect();
        assert_eq!(names.len(), Permission::ALL.len());
        for permission in Permission::ALL {
            assert!(Role::ALL.into_iter().any(|role| role.has(permission)), "{}", permission.as_str());
        }
        for request in Request::all() {
            assert!(Permission::ALL.contains(&request.permission), "{request:?}");
        }
    }

    #[test]
    fn roles_have_their_names_in_json() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
    }
}

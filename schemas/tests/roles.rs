//! The table of roles and permissions, compared with one that was written by hand from the specification, and the
//! document that is generated from it.

use otherix_schemas::permission::{Grant, Permission, Role};
use otherix_schemas::request::Request;
use otherix_testkit::generated::assert_up_to_date;

/// `*`: for any resource, `own`: for the caller's own, `-`: not at all.
const EXPECTED: &str = "
permission        admin  operator  developer  viewer  node  node-join
network:read      *      *         *          *       -     -
vm:read           *      *         *          *       -     -
node:read         *      *         *          *       -     -
event:read        *      *         *          *       *     -
refusal:read      *      *         *          *       -     -
image:read        *      *         *          *       -     -
cluster:read      *      *         *          *       -     -
network:manage    *      -         -          -       -     -
vm:create         *      *         *          -       -     -
vm:update         *      *         own        -       -     -
vm:delete         *      *         own        -       -     -
vm:lifecycle      *      *         own        -       -     -
vm:console        *      *         own        -       -     -
vm:move           *      *         -          -       -     -
node:maintenance  *      *         -          -       -     -
node:manage       *      -         -          -       -     -
user:manage       *      -         -          -       -     -
cluster:manage    *      -         -          -       -     -
user:read         *      *         -          -       -     -
audit:read        *      *         -          -       -     -
user:self         *      *         *          *       -     -
node:report       -      -         -          -       *     -
node:join         -      -         -          -       -     *
";

#[test]
fn table_is_as_specified() {
    let mut rows = EXPECTED.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let heading = rows.next().unwrap();
    assert_eq!(heading, ["permission"].into_iter().chain(Role::ALL.map(Role::as_str)).collect::<Vec<_>>());
    let mut seen = 0;
    for row in rows {
        let (name, cells) = row.split_first().unwrap();
        let permission = Permission::ALL.into_iter().find(|permission| permission.as_str() == *name).unwrap();
        let granted = Role::ALL.map(|role| match role.grant(permission) {
            Grant::Any => "*",
            Grant::Own => "own",
            Grant::None => "-",
        });
        assert_eq!(granted.as_slice(), cells, "{name}");
        seen += 1;
    }
    assert_eq!(seen, Permission::ALL.len());
}

#[test]
fn generated_document_is_up_to_date() {
    let mut text = "# Roles and permissions\n\nGenerated from `schemas/src/permission.rs` by `make generate`.\n\n\
        A user has one role; `node` and `node-join` are those of nodes and join tokens. `yes`: for any resource;\n\
        `own`: for resources that the user owns; empty: not at all. Permissions that no request below requires are\n\
        for requests that are not implemented yet. The NATS server refuses requests that a role lacks the\n\
        permission for, and the control plane checks each request again.\n\n| permission | to |"
        .to_owned();
    text.extend(Role::ALL.map(|role| format!(" {role} |")));
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(Role::ALL.len()));
    for permission in Permission::ALL {
        text.push_str(&format!("\n| `{}` | {} |", permission.as_str(), permission.summary()));
        for role in Role::ALL {
            text.push_str(match role.grant(permission) {
                Grant::Any => " yes |",
                Grant::Own => " own |",
                Grant::None => " |",
            });
        }
    }
    text.push_str("\n\n## Requests\n\n| request | permission | what it does |\n|---|---|---|\n");
    for request in Request::all() {
        let permission = request.permission.as_str();
        text.push_str(&format!("| `{}` | `{permission}` | {} |\n", request.name, request.summary));
    }
    assert_up_to_date("../docs/roles.md", &text);
}

//! The reasons why a command is rejected, which the caller can resolve.

use std::net::Ipv4Addr;

use otherix_schemas::change::{CURRENT, GENERATION, REQUESTED};
use otherix_schemas::error::{ErrorBody, ErrorCode, LAST_REPORT, REMOVED_NODE};
use otherix_schemas::id::{JoinTokenId, NetworkId, NodeId, UserUuid, VmId};
use otherix_schemas::node::{REPORT_NUMBER_MAX, ReportNumber, Resources};
use otherix_schemas::permission::{Permission, Role};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{
    BridgeName, HostAddressError, Ipv4Subnet, MtuError, NetworkName, NodeName, UserKey, UserName, VmName,
};
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::{Arch, Instruction, Power};
use serde_json::{Value, json};

/// A resource is of another generation than a request expects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{noun} `{name}` has been changed meanwhile: it is of generation {actual}, not {expected}. Look at it, and try \
     again"
)]
pub struct GenerationConflict {
    pub noun: &'static str,
    pub name: String,
    pub expected: Position,
    pub actual: Position,
    /// Its view.
    pub current: Value,
    /// Its view as it would be, if the change would be possible.
    pub requested: Option<Value>,
}

use super::MoveRejection;

/// A command is rejected because of the current state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("network `{name}` exists already, as `{other}`")]
    NameTaken { name: NetworkName, other: NetworkId },
    #[error("bridge `{bridge}` belongs to network `{other}`: only unmanaged networks may share a bridge")]
    BridgeTaken { bridge: BridgeName, other: NetworkName },
    #[error("subnet `{subnet}` overlaps `{taken}` of network `{other}`, which has NAT egress too")]
    SubnetOverlaps { subnet: Ipv4Subnet, other: NetworkName, taken: Ipv4Subnet },
    #[error("invalid request: {0}")]
    Invalid(Violations),
    #[error(transparent)]
    GenerationChanged(Box<GenerationConflict>),
    #[error("there is no network `{name}`, and generation {expected} of it is to be changed")]
    NothingToReplace { name: NetworkName, expected: Position },
    #[error("the VNI range is used up: the control plane needs a range with higher VNIs")]
    VnisUsedUp,
    #[error("the underlay's MTU is too small for an overlay")]
    UnderlayMtu(#[source] MtuError),
    #[error("there is no network `{0}`")]
    NoSuchNetwork(NetworkId),
    #[error("cannot delete network {name}: blocked by {vm_nics} vm_nics")]
    NetworkInUse { name: NetworkName, vm_nics: usize },
    #[error("VM `{name}` exists already, as `{other}`")]
    VmNameTaken { name: VmName, other: VmId },
    #[error("there is no VM `{0}`")]
    NoSuchVm(VmId),
    #[error("no node is ready: each is unreachable or cordoned, or the network has failed on it")]
    NoReadyNode,
    #[error("no node that is ready runs VMs for {0}: each is of another architecture")]
    NoNodeOfArch(Arch),
    #[error("node `{0}` is cordoned: choose another, or run `otherix node uncordon {0}` first")]
    NodeCordoned(NodeName),
    #[error("node `{node}` is {node_arch}, and runs no VMs for {arch}")]
    NodeOfOtherArch { node: NodeName, node_arch: Arch, arch: Arch },
    #[error("node `{node}` cannot run VMs: {reason}")]
    NodeRunsNoMachines { node: NodeName, reason: String },
    #[error("node `{node}` has no room for {needed}: it has {free} left. Delete VMs, or choose another node")]
    NoRoom { node: NodeName, needed: Resources, free: Resources },
    #[error(
        "no node has room for {needed}: node `{node}`, which of {nodes} has the most memory left, has {free}. Delete \
         VMs, or add a node"
    )]
    NoRoomAnywhere { nodes: usize, node: NodeName, needed: Resources, free: Resources },
    #[error("the NIC's random id has the tap of another: try again")]
    TapTaken,
    #[error("all addresses for NICs are in use: delete VMs that are not needed")]
    MacsUsedUp,
    #[error("network `{0}` assigns no addresses: it has no DHCP")]
    NoDhcp(NetworkName),
    #[error(transparent)]
    AddressRefused(HostAddressError),
    #[error("address `{ip}` of network `{network}` is in use by VM `{vm}`")]
    AddressTaken { ip: Ipv4Addr, network: NetworkName, vm: VmName },
    #[error(
        "address `{ip}` of network `{network}` is that of a deleted VM until {} has removed its tap",
        node.as_ref().map_or_else(|| "its node".to_owned(), |node| format!("node `{node}`"))
    )]
    AddressNotFree { ip: Ipv4Addr, network: NetworkName, node: Option<NodeName> },
    #[error(
        "all addresses of network `{network}` are in use: {used} of {addresses} in `{subnet}`{}",
        still_detached(*detached)
    )]
    AddressesUsedUp { network: NetworkName, subnet: Ipv4Subnet, addresses: u32, used: usize, detached: usize },
    #[error("there is no node `{0}`")]
    NoSuchNode(NodeId),
    #[error("cannot delete node {name}: blocked by {vms} vms")]
    NodeInUse { name: NodeName, vms: usize },
    #[error(
        "node `{node}`, which was `{name}`, was removed from the cluster for good: a machine comes back as a new node, \
         with an empty state folder"
    )]
    NodeRemoved { node: NodeId, name: NodeName },
    #[error("node `{node}` revokes reported statuses too often: retry in {retry_after_ms} ms")]
    TooManyChanges { node: NodeId, retry_after_ms: u64 },
    #[error(
        "node `{node}` reports with {number}: after {}, at most incarnation {} and sequence {REPORT_NUMBER_MAX} are \
         accepted. Update its otherix-agent, or correct `incarnation` in `node.json` of its state folder",
        last.map_or_else(|| "no report".to_owned(), |last| last.to_string()), ReportNumber::incarnation_max(*last)
    )]
    ReportOutOfRange { node: NodeId, number: ReportNumber, last: Option<ReportNumber> },
    #[error("node `{node}` has joined as `{name}`, and a node keeps its name")]
    NodeHasName { node: NodeId, name: NodeName },
    #[error("another node is called `{0}`")]
    NodeNameTaken(NodeName),
    #[error("node `{0}` has this public key, or had it once: each node needs a key of its own")]
    MeshKeyTaken(String),
    #[error("VM `{name}` belongs to another user: role `{role}` has `{}` for its own VMs only", permission.as_str())]
    NotOwner { name: VmName, role: Role, permission: Permission },
    #[error(
        "VM `{0}` has no machine that its node runs: it was created for a machine that somebody else runs. Create \
         another with `machine`"
    )]
    NoMachine(VmName),
    #[error("cannot {} VM `{vm}`: {}", instruction.as_str(), is_already(*power))]
    NotPossible { vm: VmName, power: Power, instruction: Instruction },
    #[error(transparent)]
    Move(#[from] MoveRejection),
    #[error("there is no user `{0}`")]
    NoSuchUser(UserUuid),
    #[error("user `{name}` exists already, as `{other}`")]
    UserNameTaken { name: UserName, other: UserUuid },
    #[error("the key `{0}` is or was registered: each credential needs a key of its own")]
    UserKeyTaken(UserKey),
    #[error("there are users already: an admin creates further ones")]
    UsersExist,
    #[error("user `{0}` is the last admin whose credential does not expire: make another user admin first")]
    LastAdmin(UserName),
    #[error("user `{name}` expired at {at}: a new key needs a new time of expiry")]
    UserExpired { name: UserName, at: Timestamp },
    #[error("must be in the future: {at} is not after {now}")]
    ExpiryPast { at: Timestamp, now: Timestamp },
    #[error("there is no join token `{0}`")]
    NoSuchJoinToken(JoinTokenId),
    #[error("{0} join tokens are active: revoke some, or let them expire")]
    TooManyJoinTokens(usize),
    #[error(
        "the join token `{id}` is used up: it was redeemed {}. Create another with `otherix node join-token create`",
        times(*uses)
    )]
    JoinTokenUsedUp { id: JoinTokenId, uses: u32 },
    #[error("the join token `{id}` expired at {at}: create another with `otherix node join-token create`")]
    JoinTokenExpired { id: JoinTokenId, at: Timestamp },
    #[error("the join token `{0}` is revoked: create another with `otherix node join-token create`")]
    JoinTokenRevoked(JoinTokenId),
    #[error("the join token is for node `{named}`, not for `{name}`: join as `{named}`, or create another token")]
    JoinTokenOfAnotherNode { named: NodeName, name: NodeName },
    #[error(
        "there is a node `{name}`, with id `{node}`: choose another name, or, if this is its machine, create a token \
         for it with `otherix node join-token create --name {name}`"
    )]
    NodeNeedsNamedToken { name: NodeName, node: NodeId },
    #[error("the id `{0}` is not that of a node: use an empty state folder")]
    NodeIdTaken(NodeId),
    #[error("node `{node}` has offered another key less than ten minutes ago: retry in {retry_after_s} s")]
    TooManyKeys { node: NodeId, retry_after_s: i64 },
    #[error("must be within 366 days: {0}")]
    JoinTokenTooLong(Timestamp),
    #[error("the state folder is that of node `{own}`, which is not `{name}`: use an empty one")]
    StateFolderOfAnotherNode { name: NodeName, own: NodeId },
    #[error("the mesh's supernet `{0}` is used up: the control plane needs one with higher addresses")]
    MeshUsedUp(Ipv4Subnet),
}

impl From<&Rejection> for ErrorBody {
    fn from(rejection: &Rejection) -> Self {
        let code = match rejection {
            Rejection::NameTaken { .. }
            | Rejection::BridgeTaken { .. }
            | Rejection::SubnetOverlaps { .. }
            | Rejection::VnisUsedUp
            | Rejection::UnderlayMtu(_)
            | Rejection::VmNameTaken { .. }
            | Rejection::NoMachine(_)
            | Rejection::NotPossible { .. }
            | Rejection::Move(_)
            | Rejection::NoReadyNode
            | Rejection::NoNodeOfArch(_)
            | Rejection::NodeCordoned(_)
            | Rejection::NodeOfOtherArch { .. }
            | Rejection::NodeRunsNoMachines { .. }
            | Rejection::MacsUsedUp
            | Rejection::AddressTaken { .. }
            | Rejection::AddressNotFree { .. }
            | Rejection::NodeHasName { .. }
            | Rejection::NodeNameTaken(_)
            | Rejection::MeshKeyTaken(_)
            | Rejection::MeshUsedUp(_)
            | Rejection::UserNameTaken { .. }
            | Rejection::UserKeyTaken(_)
            | Rejection::UsersExist
            | Rejection::LastAdmin(_)
            | Rejection::UserExpired { .. }
            | Rejection::TooManyJoinTokens(_)
            | Rejection::JoinTokenUsedUp { .. }
            | Rejection::JoinTokenExpired { .. }
            | Rejection::JoinTokenRevoked(_)
            | Rejection::JoinTokenOfAnotherNode { .. }
            | Rejection::NodeNeedsNamedToken { .. }
            | Rejection::NodeIdTaken(_)
            | Rejection::StateFolderOfAnotherNode { .. } => ErrorCode::Conflict,
            Rejection::NoSuchNetwork(_)
            | Rejection::NothingToReplace { .. }
            | Rejection::NoSuchNode(_)
            | Rejection::NoSuchVm(_)
            | Rejection::NoSuchUser(_)
            | Rejection::NoSuchJoinToken(_) => ErrorCode::NotFound,
            Rejection::NotOwner { role, permission, .. } => {
                return Self::new(ErrorCode::PermissionDenied, rejection.to_string())
                    .with_detail("permission", permission.as_str())
                    .with_detail("role", role.as_str());
            }
            Rejection::NoDhcp(_) | Rejection::AddressRefused(_) => return Violations::one("ip", rejection).into(),
            Rejection::AddressesUsedUp { addresses, used, .. } => {
                return conflict(rejection, &[("addresses", u64::from(*addresses)), ("used", number(*used))]);
            }
            Rejection::NoRoom { needed, free, .. } | Rejection::NoRoomAnywhere { needed, free, .. } => {
                return no_room(rejection, *needed, *free);
            }
            Rejection::ExpiryPast { .. } | Rejection::JoinTokenTooLong(_) => {
                return Violations::one("expires_at", rejection).into();
            }
            Rejection::TapTaken => ErrorCode::Unavailable,
            Rejection::NetworkInUse { vm_nics, .. } => return conflict(rejection, &[("vm_nics", number(*vm_nics))]),
            Rejection::NodeInUse { vms, .. } => return conflict(rejection, &[("vms", number(*vms))]),
            Rejection::NodeRemoved { node, .. } => {
                return Self::new(ErrorCode::Conflict, rejection.to_string())
                    .with_detail(REMOVED_NODE, node.to_string());
            }
            Rejection::ReportOutOfRange { last, .. } => return report_out_of_range(rejection, *last),
            Rejection::Invalid(violations) => return violations.clone().into(),
            Rejection::GenerationChanged(conflict) => return generation_changed(conflict),
            Rejection::TooManyKeys { retry_after_s, .. } => return too_early(rejection, *retry_after_s * 1000),
            Rejection::TooManyChanges { retry_after_ms, .. } => return too_early(rejection, *retry_after_ms),
        };
        Self::new(code, rejection.to_string())
    }
}

/// A request that will be accepted after some milliseconds.
fn too_early(rejection: &Rejection, retry_after_ms: impl Into<serde_json::Value>) -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, rejection.to_string()).with_detail("retry_after_ms", retry_after_ms.into())
}

fn no_room(rejection: &Rejection, needed: Resources, free: Resources) -> ErrorBody {
    let body = ErrorBody::new(ErrorCode::Conflict, rejection.to_string());
    body.with_detail("needed", json!(needed)).with_detail("free", json!(free))
}

fn report_out_of_range(rejection: &Rejection, last: Option<ReportNumber>) -> ErrorBody {
    ErrorBody::from(Violations::one("incarnation", rejection)).with_detail(LAST_REPORT, json!(last))
}

/// A conflict with both states as details.
fn generation_changed(conflict: &GenerationConflict) -> ErrorBody {
    let GenerationConflict { actual, current, requested, .. } = conflict;
    let body = ErrorBody::new(ErrorCode::Conflict, conflict.to_string())
        .with_detail(GENERATION, json!(actual))
        .with_detail(CURRENT, current.clone());
    requested.iter().fold(body, |body, requested| body.with_detail(REQUESTED, requested.clone()))
}

/// A conflict with numbers as details.
fn conflict(rejection: &Rejection, details: &[(&str, u64)]) -> ErrorBody {
    let body = ErrorBody::new(ErrorCode::Conflict, rejection.to_string());
    details.iter().fold(body, |body, (name, number)| body.with_detail(name, *number))
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// How many of the addresses in use are those of deleted VMs.
fn still_detached(number: usize) -> String {
    match number {
        0 => String::new(),
        _ => format!(", of which {number} are those of deleted VMs until their nodes have removed their taps"),
    }
}

/// Why a VM cannot be instructed.
fn is_already(power: Power) -> &'static str {
    match power {
        Power::Running => "it is running, or starting",
        Power::Paused => "it is paused; `otherix vm resume` lets it go on",
        Power::Stopped => "it is stopped; `otherix vm start` starts it",
    }
}

/// "once", or how many times.
fn times(number: u32) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

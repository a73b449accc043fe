//! What each kind of user may publish and subscribe to. The rights of a user are those of the signing key that has
//! signed its JWT, so that a change of a role concerns all its users at once.
//!
//! In the subjects, `{{subject()}}` stands for the user's own public key. A name or tag in its place could have
//! wildcards.

use otherix_identity::jwt::{ConnectionKind, Permissions, SubjectPermissions, UserLimits, UserPermissions};
use otherix_schemas::bucket::Bucket;
use otherix_schemas::log::{CHECKPOINT_STREAM, CHECKPOINT_SUBJECTS};
use otherix_schemas::permission::{Permission, Role};
use otherix_schemas::request::Request;
use otherix_schemas::subject::{ASK_ANSWERS, ASKS, HEARTBEATS, LIVE_PREFIX, REQUESTS, STREAM, STREAM_SUBJECTS};

use super::accounts::{AccountName, DELIVER, events_api};
use super::refusals::AUTH_FAILURES;

/// The user's own public key.
const ME: &str = "{{subject()}}";

/// The durable consumers that a user may have, by the suffixes of their names after the user's key.
pub(super) const SLOTS: [&str; 4] = ["", "_1", "_2", "_3"];

/// A kind of user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// People, nodes and machines that are about to join.
    Role(Role),
    /// People who read the buckets of the state.
    StateReader,
    /// A connection of the control plane.
    Part(ControlPlanePart),
}

/// A part of the control plane that has a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ControlPlanePart {
    /// Tells the server of changed accounts, and hears of failed authentications.
    Claims,
    /// Publishes events and administers their stream.
    Relay,
    /// Answers people.
    PeopleService,
    /// Answers nodes.
    NodesService,
    /// Administers the mirror of the stream.
    Mirror,
    /// Writes the buckets of the state.
    State,
    /// Administers the mirrors of the buckets.
    StateMirrors,
}

impl ControlPlanePart {
    pub(crate) const ALL: [Self; 7] = [
        Self::Claims,
        Self::Relay,
        Self::PeopleService,
        Self::NodesService,
        Self::Mirror,
        Self::State,
        Self::StateMirrors,
    ];

    /// The name of its user, and of the file of its signing key.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Claims => "claims",
            Self::Relay => "relay",
            Self::PeopleService => "people-service",
            Self::NodesService => "nodes-service",
            Self::Mirror => "mirror",
            Self::State => "state",
            Self::StateMirrors => "state-mirrors",
        }
    }
}

impl Scope {
    /// All kinds of users.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let people = Role::ALL.into_iter().map(Self::Role).chain([Self::StateReader]);
        people.chain(ControlPlanePart::ALL.into_iter().map(Self::Part))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Role(role) => role.as_str(),
            Self::StateReader => "state-reader",
            Self::Part(part) => part.name(),
        }
    }

    /// The account that its users are in.
    pub(super) fn account(self) -> AccountName {
        match self {
            Self::Role(Role::Node | Role::NodeJoin) => AccountName::Nodes,
            Self::Role(Role::Admin | Role::Operator | Role::Developer | Role::Viewer) => AccountName::Clients,
            Self::Part(ControlPlanePart::Claims) => AccountName::System,
            Self::Part(
                ControlPlanePart::Relay
                | ControlPlanePart::PeopleService
                | ControlPlanePart::NodesService
                | ControlPlanePart::State,
            ) => AccountName::Control,
            Self::StateReader | Self::Part(ControlPlanePart::StateMirrors) => AccountName::State,
            Self::Part(ControlPlanePart::Mirror) => AccountName::Events,
        }
    }

    /// The rights of its users.
    pub(super) fn permissions(self) -> UserPermissions {
        let (mut publish, mut subscribe) = match self {
            Self::Role(role @ (Role::Node | Role::NodeJoin)) => node(role),
            Self::Role(role @ (Role::Admin | Role::Operator | Role::Developer | Role::Viewer)) => person(role),
            Self::Part(ControlPlanePart::Claims) => {
                (vec!["$SYS.REQ.CLAIMS.UPDATE".to_owned()], vec![AUTH_FAILURES.to_owned()])
            }
            Self::Part(ControlPlanePart::Relay) => relay(),
            Self::Part(ControlPlanePart::PeopleService) => service(|request| !is_of_nodes(request)),
            Self::Part(ControlPlanePart::NodesService) => nodes_service(),
            Self::StateReader => (Bucket::ALL.into_iter().flat_map(read_bucket).collect(), Vec::new()),
            Self::Part(ControlPlanePart::Mirror) => mirror(),
            Self::Part(ControlPlanePart::State) => {
                (Bucket::ALL.into_iter().flat_map(write_bucket).collect(), Vec::new())
            }
            Self::Part(ControlPlanePart::StateMirrors) => {
                (Bucket::ALL.into_iter().flat_map(keep_bucket).collect(), Vec::new())
            }
        };
        // A message to oneself shows that the server has processed what was sent before. Nodes do not need that.
        if !matches!(self, Self::Role(Role::Node | Role::NodeJoin)) {
            publish.push(format!("_INBOX_{ME}.>"));
        }
        subscribe.push(format!("_INBOX_{ME}.>"));
        // An empty list would allow everything.
        let allowed = |allow: Vec<String>| {
            let deny = if allow.is_empty() { vec![">".to_owned()] } else { Vec::new() };
            SubjectPermissions { allow, deny }
        };
        UserPermissions {
            subjects: Permissions { publish: allowed(publish), subscribe: allowed(subscribe) },
            limits: UserLimits::NONE,
            // Refuses leaf nodes.
            allowed_connection_types: vec![ConnectionKind::Standard],
        }
    }
}

/// What a kind of user may publish and subscribe to, beside its own inbox.
type Subjects = (Vec<String>, Vec<String>);

/// The requests that a role has the permission for, so that the server itself refuses the others.
fn requests(role: Role) -> Vec<String> {
    role.requests().map(|request| format!("{REQUESTS}.{ME}.{}", request.name)).collect()
}

fn person(role: Role) -> Subjects {
    let (mut publish, api) = (requests(role), events_api());
    let mut subscribe = vec![format!("{LIVE_PREFIX}.otherix.evt.v1.>"), format!("{LIVE_PREFIX}.otherix.out.v1.>")];
    if role.has(Permission::EventRead) {
        publish.push(format!("{api}.STREAM.INFO.{CHECKPOINT_STREAM}"));
        publish.extend(direct_get(&api, CHECKPOINT_STREAM));
    }
    // The stream has the events about users, too.
    if role.has(Permission::AuditRead) {
        publish.push(format!("{api}.STREAM.INFO.{STREAM}"));
        subscribe = vec![format!("{LIVE_PREFIX}.otherix.>"), format!("{DELIVER}.{ME}.>")];
        publish.extend(direct_get(&api, STREAM));
        for slot in SLOTS.map(|slot| format!("{ME}{slot}")) {
            publish.extend(["INFO", "MSG.NEXT"].map(|verb| format!("{api}.CONSUMER.{verb}.{STREAM}.{slot}")));
            publish.push(format!("$JS.ACK.{STREAM}.{slot}.>"));
        }
    }
    (publish, subscribe)
}

fn node(role: Role) -> Subjects {
    let mut publish = requests(role);
    if !role.has(Permission::NodeReport) {
        return (publish, Vec::new());
    }
    publish.extend([HEARTBEATS, ASK_ANSWERS].map(|prefix| format!("{prefix}.{ME}")));
    (publish, vec![format!("{LIVE_PREFIX}.otherix.evt.v1.>"), format!("{ASKS}.{ME}")])
}

/// Whether nodes, or machines that are about to join, make such requests: they arrive on a connection of their own.
fn is_of_nodes(request: Request) -> bool {
    [Role::Node, Role::NodeJoin].into_iter().any(|role| role.has(request.permission))
}

/// A service receives requests and answers them. It need not be able to publish anything else.
fn service(receives: fn(Request) -> bool) -> Subjects {
    // Where the server expects answers to requests that cross accounts.
    let publish = vec!["_R_.>".to_owned()];
    let requests = Request::all().filter(|request| receives(*request));
    let mut subscribe: Vec<String> = requests.map(|request| format!("{REQUESTS}.*.{}", request.name)).collect();
    subscribe.push("$SRV.>".to_owned());
    (publish, subscribe)
}

fn nodes_service() -> Subjects {
    let (mut publish, mut subscribe) = service(is_of_nodes);
    subscribe.push(format!("{HEARTBEATS}.*"));
    // Its own heartbeats: nodes are judged only while these arrive.
    publish.push(format!("{HEARTBEATS}.*"));
    publish.push(format!("{ASKS}.*"));
    subscribe.push(format!("{ASK_ANSWERS}.*"));
    (publish, subscribe)
}

fn relay() -> Subjects {
    let mut publish = administration();
    publish.extend(STREAM_SUBJECTS.map(ToOwned::to_owned));
    // Before they are stored in the stream.
    publish.push(format!("{LIVE_PREFIX}.otherix.>"));
    (publish, Vec::new())
}

fn direct_get(api: &str, stream: &str) -> [String; 2] {
    [format!("{api}.DIRECT.GET.{stream}"), format!("{api}.DIRECT.GET.{stream}.>")]
}

/// The mirror of the events, and the stream of checkpoints.
fn mirror() -> Subjects {
    let (mut publish, api) = (administration(), "$JS.API");
    publish
        .extend(["CREATE", "UPDATE", "INFO", "MSG.GET"].map(|verb| format!("{api}.STREAM.{verb}.{CHECKPOINT_STREAM}")));
    publish.extend(direct_get(api, CHECKPOINT_STREAM));
    publish.push(CHECKPOINT_SUBJECTS.to_owned());
    (publish, Vec::new())
}

/// What clients need to read and watch a bucket. Each answer has a body, so that none can be a request to delete
/// something: see docs/adr/0038.
fn read_bucket(bucket: Bucket) -> Vec<String> {
    let (api, stream) = ("$JS.API", bucket.stream());
    let mut publish = vec![format!("{api}.STREAM.INFO.{stream}"), format!("{api}.STREAM.MSG.GET.{stream}")];
    publish.extend([format!("{api}.CONSUMER.CREATE.{stream}"), format!("{api}.CONSUMER.CREATE.{stream}.>")]);
    publish.extend(["INFO", "DELETE"].map(|verb| format!("{api}.CONSUMER.{verb}.{stream}.*")));
    publish.push(format!("$JS.FC.{stream}.>"));
    publish
}

/// What keeping a mirror needs.
fn keep_bucket(bucket: Bucket) -> Vec<String> {
    let verbs = ["CREATE", "UPDATE", "DELETE", "INFO"];
    verbs.map(|verb| format!("$JS.API.STREAM.{verb}.{}", bucket.stream())).into()
}

/// What writing a bucket needs.
fn write_bucket(bucket: Bucket) -> Vec<String> {
    let (api, stream) = ("$JS.API", bucket.stream());
    let mut publish = keep_bucket(bucket);
    publish.push(bucket.subject(">"));
    publish.extend([format!("{api}.CONSUMER.CREATE.{stream}"), format!("{api}.CONSUMER.CREATE.{stream}.>")]);
    publish.extend(["INFO", "DELETE", "MSG.NEXT"].map(|verb| format!("{api}.CONSUMER.{verb}.{stream}.*")));
    publish.extend([format!("$JS.ACK.{stream}.>"), format!("$JS.FC.{stream}.>")]);
    publish
}

/// The administration of stream or mirror and of its consumers.
fn administration() -> Vec<String> {
    let api = "$JS.API";
    let of_stream = ["CREATE", "UPDATE", "DELETE", "PURGE", "INFO", "MSG.GET"];
    let of_consumers = ["CREATE", "LIST", "NAMES"];
    let of_a_consumer = ["DURABLE.CREATE", "INFO", "DELETE", "PAUSE", "RESET", "MSG.NEXT"];
    let mut publish = vec![format!("{api}.INFO"), format!("{api}.CONSUMER.CREATE.{STREAM}.>")];
    publish.extend(of_stream.map(|verb| format!("{api}.STREAM.{verb}.{STREAM}")));
    publish.extend(of_consumers.map(|verb| format!("{api}.CONSUMER.{verb}.{STREAM}")));
    publish.extend(of_a_consumer.map(|verb| format!("{api}.CONSUMER.{verb}.{STREAM}.*")));
    publish.extend(direct_get(api, STREAM));
    publish.extend([format!("$JS.ACK.{STREAM}.>"), format!("$JS.FC.{STREAM}.>")]);
    publish
}

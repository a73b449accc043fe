//! The accounts on NATS, and what they share.
//!
//! - `CONTROL` has the stream of events and the services.
//! - `EVENTS` has the mirror of the stream, which people read.
//! - `CLIENTS` has people, `NODES` has nodes: neither has JetStream.
//! - `STATE` has mirrors of the key-value buckets, and people who watch them: see docs/adr/0038.
//! - `SYSTEM` is the server's own.
//!
//! The server checks no permission on the *reply* subject of a request. Whoever may use JetStream, in whatever way, can
//! therefore have it publish to any subject of the account that JetStream is in. So nobody but the control plane is in
//! such an account, except `STATE`, where nothing is stored but by mirrors. People reach single verbs of the others by
//! imports. An answer to these comes from the server, and is published to the reply subject in the account of whoever
//! asked. There, services are imported with wildcards only, which such an answer does not reach, and mappings keep it
//! from the live feed.
//! The services are imported with `share`, because only then does the server attest the caller to them
//! (`Nats-Request-Info`).

use otherix_identity::PublicKey;
use otherix_identity::jwt::{
    Account, AccountLimits, Export, ExportKind, Import, JetStreamLimits, Mapping, ResponseKind, Scope as SigningScope,
    ScopeKind,
};
use otherix_schemas::bucket::Bucket;
use otherix_schemas::subject::{ASK_ANSWERS, ASKS, EVENTS_DOMAIN, HEARTBEATS, LIVE_PREFIX, REQUESTS, STREAM};

use super::error::NatsError;
use super::identity::Identity;
use super::revoked_keys::{AccountRevocations, RevokedKeys};

/// The prefix under which the mirror reaches the JetStream API of `CONTROL`.
pub(super) const MIRROR_API: &str = "control.js";

/// The subject prefix on which `CONTROL` delivers messages to the mirror.
pub(super) const MIRROR_DELIVER: &str = "mirror.deliver";

/// The subject prefix on which `CONTROL` delivers messages to the mirrors of the buckets.
pub(super) const STATE_DELIVER: &str = "state.deliver";

/// The prefix under which people reach the JetStream API of `EVENTS`: that of a JetStream domain, so that clients need
/// nothing but its name.
pub(super) fn events_api() -> String {
    format!("$JS.{EVENTS_DOMAIN}.API")
}

/// The subject prefix on which `EVENTS` delivers messages to consumers of people.
pub(super) const DELIVER: &str = "deliver";

/// Where messages go that a user publishes, or has the server publish, on a subject that is only imported.
const FORGED: &str = "forged";

/// Nanoseconds after which the server forgets a read of a message that is not answered. It keeps an entry for each.
const READ_THRESHOLD: u64 = 3_000_000_000;

/// JetStream in `STATE`: the mirrors, and the consumers of those who watch them.
const STATE_LIMITS: JetStreamLimits = JetStreamLimits { streams: 3, consumer: 1_000, ..JetStreamLimits::UNLIMITED };

/// An account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AccountName {
    System,
    Control,
    Events,
    Clients,
    Nodes,
    State,
}

/// The keys that accounts refuse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revocations {
    /// Of people.
    pub(crate) clients: AccountRevocations,
    pub(crate) nodes: AccountRevocations,
}

impl AccountName {
    pub(crate) const ALL: [Self; 6] =
        [Self::System, Self::Control, Self::Events, Self::Clients, Self::Nodes, Self::State];

    /// Those that an operator of somebody else has, too.
    pub(crate) const SHARED: [Self; 5] = [Self::Control, Self::Events, Self::Clients, Self::Nodes, Self::State];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::System => "SYSTEM",
            Self::Control => "CONTROL",
            Self::Events => "EVENTS",
            Self::Clients => "CLIENTS",
            Self::Nodes => "NODES",
            Self::State => "STATE",
        }
    }
}

/// What an account's JWT says.
pub(super) fn account(identity: &Identity, name: AccountName, revoked: &Revocations) -> Result<Account, NatsError> {
    let (exports, imports, forgeable) = match name {
        AccountName::System => (Vec::new(), Vec::new(), Vec::new()),
        AccountName::Control => (control_exports(), Vec::new(), Vec::new()),
        AccountName::Events => (events_exports(), events_imports(identity)?, Vec::new()),
        AccountName::Clients => (Vec::new(), clients_imports(identity)?, vec![LIVE_PREFIX, DELIVER]),
        AccountName::Nodes => (Vec::new(), nodes_imports(identity)?, vec![LIVE_PREFIX, ASKS]),
        AccountName::State => (Vec::new(), state_imports(identity)?, Vec::new()),
    };
    let jetstream = match name {
        AccountName::Control | AccountName::Events => JetStreamLimits::UNLIMITED,
        AccountName::State => STATE_LIMITS,
        AccountName::System | AccountName::Clients | AccountName::Nodes => JetStreamLimits::default(),
    };
    let revocations = match name {
        AccountName::Clients | AccountName::State => revoked.clients.keys.clone(),
        AccountName::Nodes => revoked.nodes.keys.clone(),
        AccountName::System | AccountName::Control | AccountName::Events => RevokedKeys::new(),
    };
    let mapping = |prefix: &str| {
        let elsewhere = Mapping { subject: format!("{FORGED}.{prefix}.>"), weight: 0 };
        (format!("{prefix}.>"), vec![elsewhere])
    };
    let own = identity.signing_keys().filter(|(scope, _)| scope.account() == name);
    let signing_keys = own.map(|(scope, key)| SigningScope {
        kind: ScopeKind::UserScope,
        key: key.clone(),
        role: scope.name().to_owned(),
        template: scope.permissions(),
    });
    Ok(Account {
        imports,
        exports,
        signing_keys: signing_keys.collect(),
        revocations,
        mappings: forgeable.into_iter().map(mapping).collect(),
        ..Account::new(AccountLimits { jetstream, ..AccountLimits::CLIENTS_ONLY })
    })
}

fn export(kind: ExportKind, subject: impl Into<String>) -> Export {
    let subject = subject.into();
    Export { name: subject.clone(), subject, kind, response_type: None, response_threshold: None }
}

fn stream(subject: impl Into<String>) -> Export {
    export(ExportKind::Stream, subject)
}

fn service(subject: impl Into<String>) -> Export {
    export(ExportKind::Service, subject)
}

/// A service with several answers to a request.
fn service_of_many(subject: impl Into<String>) -> Export {
    Export { response_type: Some(ResponseKind::Stream), ..service(subject) }
}

/// The JetStream API subjects with which a mirror creates its consumer on the source.
const CREATE_CONSUMER: [&str; 2] = ["CONSUMER.CREATE.*", "CONSUMER.CREATE.*.>"];

/// Verbs of the JetStream API that people may use, with one answer to a request.
const READ_INFO: [&str; 2] = ["STREAM.INFO.*", "CONSUMER.INFO.*.*"];

/// Verbs of the JetStream API by which people read a message.
const READ_MESSAGE: [&str; 2] = ["DIRECT.GET.*", "DIRECT.GET.*.>"];

/// The verb of the JetStream API by which people read the next messages of their consumers.
const READ_NEXT: &str = "CONSUMER.MSG.NEXT.*.*";

const ACKNOWLEDGE: &str = "$JS.ACK.*.>";

fn flow_control() -> String {
    format!("$JS.FC.{STREAM}.>")
}

fn bucket_flow_control() -> [String; 3] {
    Bucket::ALL.map(|bucket| format!("$JS.FC.{}.>", bucket.stream()))
}

fn requests() -> String {
    format!("{REQUESTS}.>")
}

fn heartbeats() -> String {
    format!("{HEARTBEATS}.>")
}

fn asks() -> String {
    format!("{ASKS}.>")
}

fn ask_answers() -> String {
    format!("{ASK_ANSWERS}.>")
}

fn live() -> String {
    format!("{LIVE_PREFIX}.otherix.>")
}

fn control_exports() -> Vec<Export> {
    let mut exports = vec![
        service(requests()),
        service(heartbeats()),
        service(ask_answers()),
        stream(asks()),
        stream(live()),
        stream(format!("{MIRROR_DELIVER}.>")),
        service(flow_control()),
    ];
    exports.push(stream(format!("{STATE_DELIVER}.>")));
    exports.extend(bucket_flow_control().map(service));
    exports.extend(CREATE_CONSUMER.map(|verb| service_of_many(format!("$JS.API.{verb}"))));
    exports
}

fn events_exports() -> Vec<Export> {
    let mut exports =
        vec![service_of_many(format!("$JS.API.{READ_NEXT}")), service(ACKNOWLEDGE), stream(format!("{DELIVER}.>"))];
    exports.extend(READ_INFO.map(|verb| service(format!("$JS.API.{verb}"))));
    exports.extend(READ_MESSAGE.map(|verb| {
        let threshold = Some(READ_THRESHOLD);
        Export { response_threshold: threshold, ..service_of_many(format!("$JS.API.{verb}")) }
    }));
    exports
}

/// What an account takes from another one.
struct Imports<'a>(&'a PublicKey);

impl Imports<'_> {
    fn import(&self, kind: ExportKind, subject: String) -> Import {
        let (name, account) = (subject.clone(), self.0.clone());
        Import { name, subject, account, local_subject: None, kind, share: false }
    }

    fn stream(&self, subject: impl Into<String>) -> Import {
        self.import(ExportKind::Stream, subject.into())
    }

    fn service(&self, subject: impl Into<String>) -> Import {
        self.import(ExportKind::Service, subject.into())
    }

    /// A service that is told who asks.
    fn attested(&self, subject: String) -> Import {
        Import { share: true, ..self.service(subject) }
    }

    /// A verb of the JetStream API, under another prefix than that of the account's own.
    fn verb(&self, verb: &str, prefix: &str) -> Import {
        Import { local_subject: Some(format!("{prefix}.{verb}")), ..self.service(format!("$JS.API.{verb}")) }
    }
}

fn events_imports(identity: &Identity) -> Result<Vec<Import>, NatsError> {
    let control = Imports(identity.account(AccountName::Control)?);
    let mut imports = vec![control.service(flow_control()), control.stream(format!("{MIRROR_DELIVER}.>"))];
    imports.extend(CREATE_CONSUMER.map(|verb| control.verb(verb, MIRROR_API)));
    Ok(imports)
}

fn state_imports(identity: &Identity) -> Result<Vec<Import>, NatsError> {
    let control = Imports(identity.account(AccountName::Control)?);
    let mut imports = vec![control.stream(format!("{STATE_DELIVER}.>"))];
    imports.extend(bucket_flow_control().map(|subject| control.service(subject)));
    imports.extend(CREATE_CONSUMER.map(|verb| control.verb(verb, MIRROR_API)));
    Ok(imports)
}

fn clients_imports(identity: &Identity) -> Result<Vec<Import>, NatsError> {
    let control = Imports(identity.account(AccountName::Control)?);
    let events = Imports(identity.account(AccountName::Events)?);
    let mut imports = vec![
        control.attested(requests()),
        control.stream(live()),
        events.service(ACKNOWLEDGE),
        events.stream(format!("{DELIVER}.>")),
    ];
    let verbs = READ_INFO.into_iter().chain(READ_MESSAGE).chain([READ_NEXT]);
    imports.extend(verbs.map(|verb| events.verb(verb, &events_api())));
    Ok(imports)
}

fn nodes_imports(identity: &Identity) -> Result<Vec<Import>, NatsError> {
    let control = Imports(identity.account(AccountName::Control)?);
    let attested = [requests(), heartbeats(), ask_answers()].map(|subject| control.attested(subject));
    Ok(attested.into_iter().chain([control.stream(live()), control.stream(asks())]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that is imported without a wildcard is reached by answers that the server publishes.
    #[test]
    fn every_imported_service_has_a_wildcard() {
        let folder = otherix_testkit::tempdir().unwrap();
        let identity = Identity::load_or_create(folder.path(), 1).unwrap();
        for name in AccountName::ALL {
            let account = account(&identity, name, &Revocations::default()).unwrap();
            for import in account.imports.iter().filter(|import| import.kind == ExportKind::Service) {
                assert!(import.subject.contains(['*', '>']), "{name:?} imports `{}`", import.subject);
            }
            let may_have_jetstream = matches!(name, AccountName::Control | AccountName::Events | AccountName::State);
            assert_eq!(account.limits.jetstream != JetStreamLimits::default(), may_have_jetstream, "{name:?}");
        }
    }
}

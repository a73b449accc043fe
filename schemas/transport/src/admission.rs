//! Who may make a request: the sender is taken from the server's attestation and must agree with the subject, must be
//! known to the control plane, and its role must have the permission. What is refused is counted and logged.

use bytes::Bytes;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::permission::Permission;
use otherix_schemas::request::{
    AT, AsOf, AsOfError, DRY_RUN, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_MAX, Request, RequestKind, STALE, TRACEPARENT,
    is_traceparent, parse_body,
};
use otherix_schemas::subject::RequestSubject;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{Caller, Callers};
use otherix_schemas::value::UserId;
use otherix_schemas::violations::Violations;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::denials::Denial;
use crate::transport::{Headers, Message};

/// The header in which the server names the sender of a message that crosses accounts with `share: true`. The server
/// appends it, and removes one of this name that a client sends; should more than one be left, the last is the
/// server's. With users that have credentials of their own, it contains the sender's whole JWT: it is never logged.
pub const REQUEST_INFO: &str = "Nats-Request-Info";

/// A request whose caller is authenticated and has the permission.
#[derive(Clone, Debug)]
pub struct Call {
    pub request: Request,
    pub caller: Caller,
    pub sender: Sender,
    pub body: Bytes,
    /// Makes it safe to repeat a command.
    pub idempotency_key: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The command is decided only, and not recorded.
    pub dry_run: bool,
    /// The answer to a query need not reflect the latest acknowledged commands.
    pub stale: bool,
    /// When a query looks at the state, unless it is now.
    pub at: Option<AsOf>,
}

impl Call {
    /// Parses the body.
    ///
    /// # Errors
    /// `validation_failed` if it is not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ErrorBody> {
        parse_body(&self.body)
    }

    /// Checks that the caller has a further permission.
    ///
    /// # Errors
    /// `permission_denied` if not.
    pub fn require(&self, permission: Permission) -> Result<(), ErrorBody> {
        if self.caller.role.has(permission) {
            return Ok(());
        }
        let (sender, caller, refusal) = (Some(&self.sender), Some(&self.caller), lacks(&self.caller, permission));
        Err(Denial { sender, caller, permission, refusal }.counted())
    }

    /// Counts the request as one that was denied after it was admitted, and returns the refusal.
    pub fn denied(&self, refusal: ErrorBody) -> ErrorBody {
        let (sender, caller, permission) = (Some(&self.sender), Some(&self.caller), self.request.permission);
        Denial { sender, caller, permission, refusal }.counted()
    }
}

/// The sender of a message that crossed accounts, as the server attests it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub user: UserId,
    /// The address that it is connected from.
    pub host: Option<String>,
    /// The name that the client gave itself.
    pub client: Option<String>,
}

/// The fields of the attestation that are used.
#[derive(Deserialize)]
struct Attestation {
    user: Option<String>,
    kind: Option<String>,
    host: Option<String>,
    name: Option<String>,
}

impl Sender {
    /// Returns the sender of a message. One that the server itself sent on a client's behalf (a JetStream reply, for
    /// example) has another kind than `Client`, and no sender.
    pub fn attested(headers: &Headers) -> Option<Self> {
        let Attestation { user, kind, host, name } = serde_json::from_str(headers.get_last(REQUEST_INFO)?).ok()?;
        let user = user.filter(|_| kind.as_deref() == Some("Client"))?.parse().ok()?;
        Some(Self { user, host, client: name })
    }
}

/// Returns the caller that sent a message, if it has the permission as of `now`.
///
/// # Errors
/// `unauthenticated` if the server attests no sender, or nobody is known under its key, or no longer;
/// `permission_denied` if its role lacks the permission.
pub fn authorize(
    sender: Option<&Sender>,
    permission: Permission,
    callers: &Callers,
    now: Option<Timestamp>,
) -> Result<Caller, ErrorBody> {
    let Some(sender) = sender else {
        let refusal = ErrorBody::new(ErrorCode::Unauthenticated, "the server does not attest who sends the message");
        return Err(Denial { sender: None, caller: None, permission, refusal }.counted());
    };
    let caller = match callers.find(&sender.user, now) {
        Ok(caller) => caller,
        Err(error) => {
            let refusal = ErrorBody::new(ErrorCode::Unauthenticated, error.to_string());
            return Err(Denial { sender: Some(sender), caller: None, permission, refusal }.counted());
        }
    };
    if caller.role.has(permission) {
        return Ok(caller);
    }
    let refusal = lacks(&caller, permission);
    Err(Denial { sender: Some(sender), caller: Some(&caller), permission, refusal }.counted())
}

/// The refusal of a request that the caller's role lacks the permission for.
fn lacks(caller: &Caller, permission: Permission) -> ErrorBody {
    let (Caller { name, role, .. }, permission) = (caller, permission.as_str());
    let text = format!("user `{name}` with role `{role}` lacks the permission `{permission}`");
    ErrorBody::new(ErrorCode::PermissionDenied, text)
        .with_detail("permission", permission)
        .with_detail("role", role.as_str())
}

/// Checks sender, permission and headers of a request.
pub(crate) fn admit(message: &Message, callers: &Callers, now: Option<Timestamp>) -> Result<Call, ErrorBody> {
    let header = |name: &str| message.headers.get(name).map(ToString::to_string);
    let subject: RequestSubject = message
        .subject
        .parse()
        .map_err(|_| ErrorBody::new(ErrorCode::NotFound, format!("there is no request `{}`", message.subject)))?;
    let RequestSubject { user, request } = subject;
    let attested = Sender::attested(&message.headers);
    let Some(sender) = attested.clone().filter(|sender| sender.user == user) else {
        let refusal =
            ErrorBody::new(ErrorCode::Unauthenticated, format!("the request does not come from user `{user}`"));
        let (sender, permission) = (attested.as_ref(), request.permission);
        return Err(Denial { sender, caller: None, permission, refusal }.counted());
    };
    let caller = authorize(Some(&sender), request.permission, callers, now)?;
    let idempotency_key = header(IDEMPOTENCY_KEY);
    if idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX) {
        let text = format!("an idempotency key must have 1 to {IDEMPOTENCY_KEY_MAX} bytes");
        return Err(ErrorBody::new(ErrorCode::ValidationFailed, text));
    }
    let traceparent = header(TRACEPARENT).filter(|context| is_traceparent(context));
    let (dry_run, stale) = (header(DRY_RUN).is_some(), header(STALE).is_some());
    let at = header(AT).map(|at| as_of(request, &at)).transpose()?;
    let body = message.payload.clone();
    Ok(Call { request, caller, sender, body, idempotency_key, traceparent, dry_run, stale, at })
}

/// The moment that a query asks for. Nothing but a query may ask for one: it would be carried out now.
fn as_of(request: Request, at: &str) -> Result<AsOf, ErrorBody> {
    if !matches!(request.kind, RequestKind::Query) {
        return Err(Violations::one("at", format!("`{}` is not a query", request.name)).into());
    }
    at.parse().map_err(|error: AsOfError| Violations::one("at", error).into())
}

#[cfg(test)]
mod tests {
    use otherix_schemas::id::UserUuid;
    use otherix_schemas::position::Position;
    use otherix_schemas::request::RequestType;
    use otherix_schemas::user::{RegisteredUser, UserRole};
    use otherix_schemas::value::UserKey;
    use otherix_schemas::vm::{DeleteVm, ListVms};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
    }

    fn key() -> UserKey {
        UserKey::from_bytes([7; 32])
    }

    /// A registry with one user, whose credential expires at second 10.
    fn callers(role: UserRole, revoked_at: Option<Timestamp>) -> Callers {
        let id: UserUuid = "0198e8c4-0000-7000-8000-000000000009".parse().unwrap();
        let user = RegisteredUser {
            name: "alice".parse().unwrap(),
            role,
            key: key(),
            expires_at: Some(at(10)),
            revoked_at,
            valid_after: 0,
            created_at: at(1),
            updated_at: at(1),
            generation: Position::new(1),
            version: 1,
        };
        [(id, user)].into_iter().collect()
    }

    fn request(name: &str, info: Option<&str>) -> Message {
        let mut headers = Headers::new();
        if let Some(info) = info {
            headers.insert(REQUEST_INFO, info).unwrap();
        }
        Message::new(format!("otherix.req.v1.{}.{name}", key()), Bytes::new()).with_headers(headers)
    }

    fn attested(user: &str, kind: &str) -> String {
        serde_json::json!({"acc": "CLIENTS", "user": user, "host": "192.0.2.7", "name": "nats.py", "kind": kind})
            .to_string()
    }

    #[test]
    fn accepts_attested_clients_only() {
        let (callers, key) = (callers(UserRole::Admin, None), key());
        let admitted = |info: Option<&str>| admit(&request(ListVms::NAME, info), &callers, Some(at(5)));
        let call = admitted(Some(&attested(key.as_str(), "Client"))).unwrap();
        assert_eq!((call.caller.name.as_str(), call.sender.host.as_deref()), ("alice", Some("192.0.2.7")));
        let (jetstream, another) = (attested(key.as_str(), "JetStream"), attested("admin", "Client"));
        for bad in
            [None, Some("nonsense"), Some(jetstream.as_str()), Some(r#"{"kind":"Client"}"#), Some(another.as_str())]
        {
            assert_eq!(admitted(bad).unwrap_err().error.code, ErrorCode::Unauthenticated, "{bad:?}");
        }
    }

    #[test]
    fn says_whether_a_caller_is_unknown_revoked_expired_or_not_permitted() {
        let info = attested(key().as_str(), "Client");
        let refused = |callers: &Callers, now| {
            admit(&request(DeleteVm::NAME, Some(&info)), callers, Some(at(now))).unwrap_err().error
        };
        let error = refused(&callers(UserRole::Viewer, None), 5);
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        assert!(error.message.contains("`vm:delete`") && error.message.contains("`viewer`"), "{}", error.message);
        assert_eq!((&error.details["permission"], &error.details["role"]), (&"vm:delete".into(), &"viewer".into()));
        let expired = refused(&callers(UserRole::Admin, None), 10);
        let unknown = refused(&Callers::default(), 5);
        let revoked = refused(&callers(UserRole::Admin, Some(at(3))), 5);
        for (error, text) in [(expired, "expired at 1970-01-01T00:00:10"), (unknown, "knows no"), (revoked, "revoked")]
        {
            assert_eq!(error.code, ErrorCode::Unauthenticated);
            assert!(error.message.contains(text), "{}", error.message);
        }
    }
}

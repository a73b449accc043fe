//! The reason why a command failed: for programs ([`ErrorBody`]), for people (message, details and hints) and for the
//! shell ([`Exit`]). Every error of other crates is converted to a [`Failure`] here; [`crate::output`] prints it.

use std::error::Error;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::request::Request;
use otherix_schemas::violations::Violations;
use otherix_transport::credentials::CredentialsError;
use otherix_transport::nats::{ConnectError, ConnectFailure, CredentialsRefusal};
use otherix_transport::request::CallError;
use otherix_transport::tls::{CaError, TlsFailure};

use crate::exit::Exit;

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// For programs. People see its message too, unless `message` replaces it.
    pub(crate) body: Box<ErrorBody>,
    /// For people, where the message differs from the one for programs.
    pub(crate) message: Option<String>,
    /// Lines below the message, for people.
    pub(crate) details: Vec<String>,
    /// What to do next, for people.
    pub(crate) hints: Vec<String>,
}

impl Failure {
    /// A failure found by the client itself.
    pub(crate) fn new(exit: Exit, code: ErrorCode, message: impl Into<String>) -> Self {
        let body = Box::new(ErrorBody::new(code, message));
        Self { exit, body, message: None, details: Vec::new(), hints: Vec::new() }
    }

    /// An error returned by the control plane, or one that the client reports in the same form.
    pub(crate) fn refused(body: ErrorBody) -> Self {
        let details = violations(&body);
        let message = (!details.is_empty()).then(|| "the request is invalid".to_owned());
        Self { exit: Exit::of(&body.error), body: Box::new(body), message, details, hints: Vec::new() }
    }

    /// Adds a hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Sets the message for people.
    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// NATS could not be reached, or rejected the credentials.
    pub(crate) fn connect(error: &ConnectError) -> Self {
        let url = &error.url;
        match &error.source {
            ConnectFailure::Credentials(refusal) => {
                let message = format!("NATS at `{url}` rejected the credentials: {refusal}");
                Self::new(Exit::Denied, ErrorCode::Unauthenticated, message).hint(refusal_hint(refusal))
            }
            ConnectFailure::Tls(failure) => Self::tls(url, failure),
            ConnectFailure::Address(error) => server(&error.to_string()),
            ConnectFailure::Connect { .. }
            | ConnectFailure::TimedOut(_)
            | ConnectFailure::Closed
            | ConnectFailure::Io(_)
            | ConnectFailure::Protocol(_)
            | ConnectFailure::Refused(_)
            | ConnectFailure::Unanswered
            | ConnectFailure::Replaced => unreachable(url, &causes(&error.source)),
        }
    }

    /// The server is not trusted, or offers no TLS.
    fn tls(url: &str, failure: &TlsFailure) -> Self {
        let cause = causes(failure);
        let (exit, code, message) = if failure.is_distrust() {
            (Exit::Denied, ErrorCode::Unauthenticated, format!("NATS at `{url}` is not trusted: {cause}"))
        } else {
            (Exit::Unreachable, ErrorCode::Unavailable, format!("cannot reach NATS at `{url}`: {cause}"))
        };
        Self::new(exit, code, message).hint(failure.hint())
    }

    /// The file of the CA could not be used.
    pub(crate) fn ca(error: &CaError) -> Self {
        Self::new(Exit::Denied, ErrorCode::Unauthenticated, causes(error))
            .hint("the CA of a control plane is `identity/tls/ca.pem` in its state folder")
    }

    /// A request was refused, or got no usable reply.
    pub(crate) fn call(error: CallError, request: Request) -> Self {
        let resource = match request.resource() {
            "consumer" => "events consumer",
            "log" => "audit",
            resource => resource,
        };
        let unavailable = |message| Self::new(Exit::Unreachable, ErrorCode::Unavailable, message);
        match error {
            CallError::Refused(body) => Self::refused(body),
            CallError::NoService { url } => {
                unavailable(format!("no control plane responds at `{url}`: NATS is running but `otherixd` is not"))
                    .hint("start `otherixd`, or set another address with `--server URL` or `OTHERIX_NATS_URL`")
            }
            CallError::TimedOut { url, timeout: _ } => unavailable(format!(
                "the request to the control plane at `{url}` timed out"
            ))
            .hint(format!("the request may have been carried out nevertheless: check with `otherix {resource} list`")),
            CallError::Transport { url, source } => unreachable(&url, &causes(&source)),
            CallError::Malformed(source) => Self::new(
                Exit::Unexpected,
                ErrorCode::Internal,
                format!("cannot parse the reply of the control plane: {source}"),
            )
            .hint("client and control plane may have different versions: see `otherix version`"),
        }
    }

    /// The credentials file could not be read or parsed.
    pub(crate) fn credentials(error: &CredentialsError) -> Self {
        let message = match error {
            CredentialsError::Read { path: _, source } => format!("{error}: {source}"),
            // The parser's message may quote the file, and with it the password.
            CredentialsError::Malformed { path: _, source } => {
                format!("{error}: line {}, column {}", source.line(), source.column())
            }
            CredentialsError::MalformedKey { path: _, source } => format!("{error}: {}", causes(source)),
            CredentialsError::Shared { .. } | CredentialsError::NoPassword { .. } => error.to_string(),
        };
        Self::new(Exit::Denied, ErrorCode::Unauthenticated, message).hint(
            "a credentials file is a `.creds` file, such as `otherix user create` writes; passwords of earlier \
             versions do not work any more",
        )
    }
}

/// What the holder of refused credentials can do.
fn refusal_hint(refusal: &CredentialsRefusal) -> &'static str {
    match refusal {
        CredentialsRefusal::Expired(_) | CredentialsRefusal::Revoked | CredentialsRefusal::Unknown => {
            "ask an administrator: after a change of role `otherix user credential NAME` prints the JWT for the file, \
             otherwise `otherix user rotate NAME` makes new credentials; or pass those of this control plane with \
             `--credentials FILE`"
        }
        CredentialsRefusal::Password | CredentialsRefusal::NoNonce | CredentialsRefusal::Other(_) => {
            "pass the credentials issued by this control plane with `--credentials FILE` or `OTHERIX_CREDENTIALS`"
        }
    }
}

impl From<Violations> for Failure {
    fn from(violations: Violations) -> Self {
        Self::refused(violations.into())
    }
}

/// `--server` is not a valid address.
pub(crate) fn server(rule: &str) -> Failure {
    Failure::from(Violations::one("server", rule)).hint("the address has the form `nats://HOST:PORT`")
}

/// There is no connection to NATS.
pub(crate) fn unreachable(url: &str, cause: &str) -> Failure {
    Failure::new(Exit::Unreachable, ErrorCode::Unavailable, format!("cannot reach NATS at `{url}`: {cause}")).hint(
        "check that the control plane (`otherixd`) is running, or set another address with `--server URL` or \
         `OTHERIX_NATS_URL`",
    )
}

/// An error and its causes in one line. A cause that the text contains already is not repeated.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// One line for each violation, with the flag or argument that it concerns.
fn violations(body: &ErrorBody) -> Vec<String> {
    if body.error.code != ErrorCode::ValidationFailed {
        return Vec::new();
    }
    let fields = body.error.details.get("fields").and_then(serde_json::Value::as_object);
    let rules = fields.into_iter().flatten().flat_map(|(field, rules)| {
        let rules = rules.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        rules.map(move |rule| format!("{}: {rule}", flag(field)))
    });
    rules.collect()
}

/// How a field of a request is given on the command line. A field that holds the id of another resource has a flag that
/// takes its name as well.
fn flag(field: &str) -> String {
    match field {
        "name" => "NAME".to_owned(),
        "expires_at" => "--expires".to_owned(),
        // Lists, whose flags can be repeated.
        "types" => "--type".to_owned(),
        "subjects" => "--subject".to_owned(),
        other => {
            let name = ["_id", "_seconds"].iter().find_map(|suffix| other.strip_suffix(suffix)).unwrap_or(other);
            format!("--{}", name.replace('_', "-"))
        }
    }
}

//! Why a command did not do what it was asked: for programs ([`ErrorBody`]), for people (message and hints), and for the
//! shell ([`Exit`]). Every error of other crates becomes a [`Failure`] here; printing it is [`crate::output`]'s.

use std::error::Error;

use async_nats::ConnectErrorKind;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::request::Request;
use otherix_schemas::violations::Violations;
use otherix_transport::connection::ConnectError;
use otherix_transport::credentials::CredentialsError;
use otherix_transport::request::CallError;

use crate::exit::Exit;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For the shell.
    pub(crate) exit: Exit,
    /// For programs. Its message is also for people, unless there is a better one.
    pub(crate) body: ErrorBody,
    /// For people, where they are told more, or in other words, than programs.
    pub(crate) message: Option<String>,
    /// What to do next.
    pub(crate) hints: Vec<String>,
}

impl Failure {
    /// A failure of ours to say what it is.
    pub(crate) fn new(exit: Exit, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { exit, body: ErrorBody::new(code, message), message: None, hints: Vec::new() }
    }

    /// What the control plane answered.
    pub(crate) fn refused(body: ErrorBody) -> Self {
        Self { exit: Exit::of(&body.error), body, message: None, hints: Vec::new() }
    }

    /// The same with one more hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same, told to people in these words.
    pub(crate) fn said(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// NATS could not be reached, or refused the credentials.
    pub(crate) fn connect(error: &ConnectError) -> Self {
        let url = &error.url;
        match error.source.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => Self::new(
                Exit::Denied,
                ErrorCode::Unauthenticated,
                format!("NATS at `{url}` refuses the credentials"),
            )
            .hint("pass the credentials that this control plane issued: `--credentials FILE` or OTHERIX_CREDENTIALS"),
            ConnectErrorKind::ServerParse => server(&causes(&error.source)),
            ConnectErrorKind::Dns
            | ConnectErrorKind::TimedOut
            | ConnectErrorKind::Tls
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => unreachable(url, &causes(&error.source)),
        }
    }

    /// A request has no success.
    pub(crate) fn call(error: CallError, request: Request) -> Self {
        let resource = request.as_str().split('.').next().unwrap_or_default();
        let unavailable = |message| Self::new(Exit::Unreachable, ErrorCode::Unavailable, message);
        match error {
            CallError::Refused(body) => Self::refused(body),
            CallError::NoService { url } => {
                unavailable(format!("no control plane answers at `{url}`: NATS runs, otherixd does not"))
                    .hint("start otherixd, or name another NATS server with `--server URL` or OTHERIX_NATS_URL")
            }
            CallError::TimedOut { url, timeout: _ } => unavailable(format!(
                "the control plane at `{url}` does not answer in time"
            ))
            .hint(format!("whether the request was carried out is not known: look with `otherix {resource} list`")),
            CallError::Nats { url, source } => unreachable(&url, &causes(&source)),
            CallError::Malformed(source) => Self::new(
                Exit::Unexpected,
                ErrorCode::Internal,
                format!("the control plane's answer is not understood: {source}"),
            )
            .hint("client and control plane may be of different versions: see `otherix version`"),
        }
    }

    /// There are no credentials in the file.
    pub(crate) fn credentials(error: &CredentialsError) -> Self {
        let cause = match error {
            CredentialsError::Read { path: _, source } => source.to_string(),
            // The parser's own words may quote the file, and with it the password.
            CredentialsError::Malformed { path: _, source } => {
                format!("line {}, column {}", source.line(), source.column())
            }
        };
        Self::new(Exit::Denied, ErrorCode::Unauthenticated, format!("{error}: {cause}"))
            .hint("a credentials file is JSON with `user` and `password`, as the control plane issued it")
    }
}

impl From<Violations> for Failure {
    fn from(violations: Violations) -> Self {
        Self::refused(violations.into())
    }
}

/// The address of NATS is none.
pub(crate) fn server(rule: &str) -> Failure {
    Failure::from(Violations::one("server", rule)).hint("an address is written `nats://HOST:PORT`")
}

/// Nobody is there.
pub(crate) fn unreachable(url: &str, cause: &str) -> Failure {
    Failure::new(Exit::Unreachable, ErrorCode::Unavailable, format!("cannot reach NATS at `{url}`: {cause}"))
        .hint("is the control plane (otherixd) running? Another address: `--server URL` or OTHERIX_NATS_URL")
}

/// An error with what caused it, in one line, nothing said twice.
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

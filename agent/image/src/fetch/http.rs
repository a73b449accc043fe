//! One HTTP request, with the redirects that it leads through.

use std::error::Error;
use std::io;
use std::time::Duration;

use ureq::http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, LAST_MODIFIED, LOCATION, TRANSFER_ENCODING,
};
use ureq::{Body, http};

use super::FetchSettings;
use super::address::RefusedAddress;
use super::error::FetchError;
use super::part::Validator;
use super::resolver::{GuardedResolver, LookupError};
use super::source::ImageSource;

const REDIRECTS_MAX: u32 = 5;
/// Largest head of a response, in bytes.
const HEAD_MAX: usize = 64 << 10;
const BUFFER: usize = 256 << 10;

/// Makes a client whose connections all pass the guard.
pub(super) fn agent(settings: &FetchSettings, tls: ureq::tls::TlsConfig) -> ureq::Agent {
    let limit = Some(settings.connect_timeout);
    let config = ureq::Agent::config_builder()
        // A proxy of the environment would resolve names by itself, past the guard.
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_response_header_size(HEAD_MAX)
        .input_buffer_size(BUFFER)
        .user_agent(concat!("otherix/", env!("CARGO_PKG_VERSION")))
        .accept("*/*")
        .accept_encoding("identity")
        .timeout_connect(limit)
        .timeout_send_request(limit)
        .timeout_recv_response(limit)
        .timeout_per_read(Some(settings.idle_timeout))
        .timeout_per_write(Some(settings.idle_timeout))
        .tls_config(tls)
        .build();
    let resolver = GuardedResolver {
        guard: settings.guard.clone(),
        lookup: settings.lookup.clone(),
        timeout: settings.connect_timeout,
    };
    ureq::Agent::with_parts(config, ureq::unversioned::transport::DefaultConnector::default(), resolver)
}

/// A response that is no redirect. Its body has not been read.
pub(super) struct Response {
    /// Who sent it, with the port if it is not the scheme's.
    pub(super) host: String,
    response: http::Response<Body>,
}

impl Response {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn into_body(self) -> Body {
        self.response.into_body()
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(super) fn validator(&self) -> Validator {
        let text = |name| self.header(name).map(str::to_owned);
        Validator { etag: text(&ETAG), last_modified: text(&LAST_MODIFIED) }
    }

    /// The length of the body, `None` if it is sent in chunks, each with its length.
    ///
    /// # Errors
    /// The inner one if the end of the body is told by the end of the connection only.
    pub(super) fn length(&self) -> Result<Option<u64>, FetchError> {
        if self.header(&TRANSFER_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Ok(None);
        }
        let length = self.header(&CONTENT_LENGTH).and_then(|length| length.parse().ok());
        length.map(Some).ok_or_else(|| FetchError::LengthUnknown { host: self.host.clone() })
    }

    /// The first byte's position and the size of the whole file, of a partial response.
    pub(super) fn range(&self) -> Option<(u64, Option<u64>)> {
        let (range, total) = self.header(&CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
    }

    /// Whether the body is compressed, although that was not asked for.
    pub(super) fn is_encoded(&self) -> bool {
        self.header(&CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    }

    pub(super) fn protocol(&self, what: impl Into<String>) -> FetchError {
        FetchError::Protocol { host: self.host.clone(), what: what.into() }
    }
}

/// Sends a GET request, and follows redirects: each is connected to by the same rules as the first URL.
pub(super) fn get(
    agent: &ureq::Agent,
    source: &ImageSource,
    headers: &[(HeaderName, String)],
) -> Result<Response, FetchError> {
    let mut source = source.clone();
    for _ in 0..=REDIRECTS_MAX {
        let host = authority(&source);
        let request =
            headers.iter().fold(agent.get(source.as_str()), |request, (name, value)| request.header(name, value));
        let response = request.call().map_err(|error| failure(&host, agent, error))?;
        let response = Response { host, response };
        if !matches!(response.status(), 301 | 302 | 303 | 307 | 308) {
            return Ok(response);
        }
        let host = response.host.clone();
        let Some(location) = response.header(&LOCATION) else {
            return Err(FetchError::RedirectWithoutTarget { host });
        };
        let target =
            source.redirected(location).map_err(|source| FetchError::Redirect { host: host.clone(), source })?;
        if target.path().is_some() {
            return Err(FetchError::Redirect { host, source: super::SourceError::Scheme });
        }
        if source.is_https() && !target.is_https() {
            return Err(FetchError::Downgrade { host });
        }
        source = target;
    }
    Err(FetchError::TooManyRedirects { max: REDIRECTS_MAX })
}

fn authority(source: &ImageSource) -> String {
    let rest = source.as_str().split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default().to_owned()
}

/// What a failure while reading the body means.
pub(super) fn body_failure(host: &str, agent: &ureq::Agent, received: u64, error: io::Error) -> FetchError {
    let is_cut = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    );
    if is_cut {
        return FetchError::Cut { host: host.to_owned(), received };
    }
    failure(host, agent, error.into())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "`ureq::Error` is not exhaustive; what is not known is permanent")]
fn failure(host: &str, agent: &ureq::Agent, error: ureq::Error) -> FetchError {
    let host = host.to_owned();
    match error {
        ureq::Error::Other(inner) => other_failure(host, inner),
        ureq::Error::Timeout(phase) => FetchError::Stalled { host, limit: limit(agent, phase) },
        ureq::Error::Rustls(inner) => FetchError::Certificate { host, source: inner.into() },
        ureq::Error::Io(inner) if is_tls(&inner) => FetchError::Certificate { host, source: inner.into() },
        ureq::Error::Io(inner) => FetchError::Connection { host, source: inner.into() },
        inner @ (ureq::Error::HostNotFound | ureq::Error::ConnectionFailed) => {
            FetchError::Connection { host, source: inner.into() }
        }
        inner => FetchError::Protocol { host, what: inner.to_string() },
    }
}

/// Failures of the resolver.
fn other_failure(host: String, inner: Box<dyn Error + Send + Sync>) -> FetchError {
    match inner.downcast::<RefusedAddress>() {
        Ok(refused) => FetchError::Address(*refused),
        Err(inner) => match inner.downcast::<LookupError>() {
            Ok(lookup) => FetchError::Connection { host, source: lookup },
            Err(inner) => FetchError::Connection { host, source: inner },
        },
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| matches!(inner.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
}

fn limit(agent: &ureq::Agent, phase: ureq::Timeout) -> Duration {
    let config = agent.config();
    let is_idle = matches!(phase, ureq::Timeout::PerRead | ureq::Timeout::PerWrite);
    let limit = if is_idle { config.timeout_per_read() } else { config.timeouts().connect };
    limit.unwrap_or_default()
}

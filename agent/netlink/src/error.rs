//! Errors of requests.

use std::{fmt, io};

use crate::attribute::find;
use crate::message::{HEADER_LEN, Reply};

/// The error text in an extended acknowledgement (`NLMSGERR_ATTR_MSG`).
const ERROR_TEXT: u16 = 1;

/// The acknowledgement contains only the header of the request.
const NLM_F_CAPPED: u16 = 0x100;

/// The acknowledgement ends with attributes.
const NLM_F_ACK_TLVS: u16 = 0x200;

/// The kernel refused a request: the error number, and the text of the extended acknowledgement if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    errno: i32,
    explanation: Option<String>,
}

impl Refusal {
    /// Creates a refusal without an explanation.
    #[must_use]
    pub const fn new(errno: i32) -> Self {
        Self { errno, explanation: None }
    }

    /// The error number, positive.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        self.errno
    }

    /// The error number as an [`io::ErrorKind`].
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        io::Error::from_raw_os_error(self.errno).kind()
    }

    /// The text of the extended acknowledgement, if the kernel gave one.
    #[must_use]
    pub fn explanation(&self) -> Option<&str> {
        self.explanation.as_deref()
    }

    /// The result in `NLMSG_ERROR` or `NLMSG_DONE`; `None` is success.
    pub(crate) fn parse(reply: &Reply<'_>, is_done: bool) -> Option<Self> {
        let (code, rest) = reply.payload.split_first_chunk()?;
        let errno = i32::from_ne_bytes(*code).saturating_neg();
        (errno != 0).then(|| Self { errno, explanation: explanation(reply.flags, rest, is_done) })
    }
}

/// An error message contains the header of the request and, unless capped, its payload; attributes follow.
fn explanation(flags: u16, rest: &[u8], is_done: bool) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = if is_done {
        0
    } else if flags & NLM_F_CAPPED != 0 {
        HEADER_LEN
    } else {
        usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?.next_multiple_of(4)
    };
    let text = find(rest.get(request..)?, ERROR_TEXT)?.value;
    let text = String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned();
    Some(text).filter(|text| !text.is_empty())
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", io::Error::from_raw_os_error(self.errno))?;
        self.explanation.as_ref().map_or(Ok(()), |text| write!(formatter, ": {}", text.trim_end_matches('.')))
    }
}

impl std::error::Error for Refusal {}

/// Why a request failed. The cause is part of the text, so neither variant has a source.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("{0}")]
    Refused(Refusal),
    /// Sending or receiving failed, so the outcome is unknown.
    #[error("the netlink socket failed: {0}")]
    Socket(io::Error),
}

impl RequestError {
    /// The error number of a refusal.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(refusal) => Some(refusal.errno()),
            Self::Socket(_) => None,
        }
    }
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<RequestError> for io::Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(refusal) if refusal.explanation.is_none() => Self::from_raw_os_error(refusal.errno),
            RequestError::Refused(refusal) => Self::new(refusal.kind(), refusal),
            RequestError::Socket(error) => error,
        }
    }
}

//! URLs of disk images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::string_value;

/// Longest URL, in bytes.
const IMAGE_URL_MAX: usize = 2048;

/// The URL of a disk image: `http` or `https`, with a host, in printable ASCII, at most 2,048 bytes, and without a user
/// or password, because it becomes part of an event, which is kept for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[hH][tT][tT][pP][sS]?://[!-~]+$", "maxLength" = 2048))]
pub struct ImageUrl(String);
string_value!(ImageUrl, ImageUrlError);

/// A rule that an image URL violates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageUrlError {
    #[error("must begin with `http://` or `https://`")]
    Scheme,
    #[error("must name a host")]
    Host,
    #[error("must be printable ASCII without spaces: write other characters as `%` and two hex digits")]
    Character,
    /// The message does not repeat the URL, which has a secret.
    #[error("must not contain a user or password, because events are kept for ever")]
    Secret,
    #[error("must have at most 2048 bytes, not {0}")]
    TooLong(usize),
}

impl ImageUrl {
    /// # Errors
    /// The first rule that the text violates.
    pub fn parse(text: &str) -> Result<Self, ImageUrlError> {
        let rest = strip_scheme(text).ok_or(ImageUrlError::Scheme)?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ImageUrlError::Character);
        }
        // Some URL parsers take a backslash for a slash, which ends the authority.
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(ImageUrlError::Secret);
        }
        if authority.split(':').next().unwrap_or_default().is_empty() {
            return Err(ImageUrlError::Host);
        }
        if text.len() > IMAGE_URL_MAX {
            return Err(ImageUrlError::TooLong(text.len()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Returns what follows the scheme, which is not case-sensitive (RFC 3986, section 3.1).
fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_http_and_https() {
        for good in [
            "https://images.example/debian-12.qcow2",
            "http://10.0.0.1:8080/a?b=c@d",
            "HTTPS://[2001:db8::1]/image",
            "https://images.example",
        ] {
            assert_eq!(ImageUrl::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn rejects_with_the_violated_rule() {
        let long = format!("https://images.example/{}", "a".repeat(2048));
        let cases = [
            ("", ImageUrlError::Scheme),
            ("images.example/debian", ImageUrlError::Scheme),
            ("file:///etc/passwd", ImageUrlError::Scheme),
            ("https://", ImageUrlError::Host),
            ("https:///path", ImageUrlError::Host),
            ("https://:8080/path", ImageUrlError::Host),
            ("https://images.example/a b", ImageUrlError::Character),
            ("https://images.example/ü", ImageUrlError::Character),
            ("https://images.example/a\n", ImageUrlError::Character),
            ("https://me:secret@images.example/", ImageUrlError::Secret),
            ("https://me@images.example/", ImageUrlError::Secret),
            (long.as_str(), ImageUrlError::TooLong(2071)),
        ];
        for (bad, error) in cases {
            assert_eq!(ImageUrl::parse(bad), Err(error), "{bad}");
        }
    }
}

//! URLs of images.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// Longest URL, in bytes.
const URL_MAX: usize = 2048;

/// Where an image comes from: an `http`, `https` or `file` URL without a user, password or fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageSource(Url);

/// A rule that a URL violates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("must be a URL: {0}")]
    Syntax(url::ParseError),
    #[error("must begin with `http://`, `https://` or `file:///`")]
    Scheme,
    #[error("must name a host")]
    Host,
    /// The message does not repeat the URL, which has a secret.
    #[error("must not contain a user or password")]
    Secret,
    #[error("must not have a fragment (`#…`)")]
    Fragment,
    #[error("must have at most 2048 bytes, not {0}")]
    TooLong(usize),
}

impl FromStr for ImageSource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > URL_MAX {
            return Err(SourceError::TooLong(text.len()));
        }
        let source = Self::try_from(Url::parse(text).map_err(SourceError::Syntax)?)?;
        if source.0.fragment().is_some() { Err(SourceError::Fragment) } else { Ok(source) }
    }
}

impl TryFrom<Url> for ImageSource {
    type Error = SourceError;

    fn try_from(url: Url) -> Result<Self, Self::Error> {
        match url.scheme() {
            "http" | "https" if url.host_str().is_none_or(str::is_empty) => Err(SourceError::Host),
            "http" | "https" if !url.username().is_empty() || url.password().is_some() => Err(SourceError::Secret),
            // `file://host/path` would be a file of another machine.
            "file" if url.host_str().is_some_and(|host| !host.is_empty()) => Err(SourceError::Scheme),
            "http" | "https" | "file" => Ok(Self(url)),
            _ => Err(SourceError::Scheme),
        }
    }
}

impl ImageSource {
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The path of a `file:` URL. One that names no file, by its syntax, is not below any folder.
    pub(super) fn path(&self) -> Option<PathBuf> {
        (self.0.scheme() == "file").then(|| self.0.to_file_path().unwrap_or_default())
    }

    /// The target of a redirect, which may be relative. A fragment is of no concern to servers.
    pub(super) fn redirected(&self, location: &str) -> Result<Self, SourceError> {
        if location.len() > URL_MAX {
            return Err(SourceError::TooLong(location.len()));
        }
        let mut url = self.0.join(location).map_err(SourceError::Syntax)?;
        url.set_fragment(None);
        Self::try_from(url)
    }
}

/// Without the query, which may be a signature that gives access.
impl fmt::Display for ImageSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        formatter.write_str(shown.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        for good in ["https://images.example/a.qcow2?x=y", "HTTP://10.0.0.1:8080", "file:///srv/images/a", "file:/a"] {
            good.parse::<ImageSource>().unwrap();
        }
        for (bad, rule) in [
            ("ftp://x/a", SourceError::Scheme),
            ("file://other/srv/a", SourceError::Scheme),
            ("nbd://127.0.0.1/x", SourceError::Scheme),
            ("data:text/plain,x", SourceError::Scheme),
            ("https://user@x/a", SourceError::Secret),
            ("https://:secret@x/a", SourceError::Secret),
            ("https://x/a#b", SourceError::Fragment),
        ] {
            assert_eq!(bad.parse::<ImageSource>().unwrap_err(), rule, "{bad}");
        }
        assert!(matches!("/srv/a".parse::<ImageSource>(), Err(SourceError::Syntax(_))));
        assert!(matches!("http://".parse::<ImageSource>(), Err(SourceError::Syntax(_))));
        assert_eq!(format!("http://x/{}", "a".repeat(2048)).parse::<ImageSource>(), Err(SourceError::TooLong(2057)));
        assert_eq!("https://x/a?signature=s".parse::<ImageSource>().unwrap().to_string(), "https://x/a");
    }

    #[test]
    fn redirects() {
        let source: ImageSource = "https://x/a/b?c".parse().unwrap();
        for (location, target) in [
            ("http://y/z", "http://y/z"),
            ("//y/z", "https://y/z"),
            ("/z#f", "https://x/z"),
            ("../z", "https://x/z"),
            ("?d", "https://x/a/b?d"),
        ] {
            assert_eq!(source.redirected(location).unwrap().as_str(), target);
        }
        assert_eq!(source.redirected("gopher://y/"), Err(SourceError::Scheme));
        assert_eq!(source.redirected("https://u:p@y/"), Err(SourceError::Secret));
    }
}

//! How a consumer is read.

use std::path::Path;

use otherix_schemas::consumer::ConsumerView;
use serde::Serialize;

use crate::access::Access;

/// What is printed as JSON: the consumer, and a command that reads it.
#[derive(Serialize)]
pub(super) struct WithCommand<'a> {
    #[serde(flatten)]
    pub(super) consumer: &'a ConsumerView,
    pub(super) read_command: String,
}

/// A command of the `nats` tool that prints and acknowledges the next events. It depends on no context.
pub(super) fn command(access: &Access, view: &ConsumerView) -> String {
    let Access { endpoint, credentials, ca } = access;
    let ConsumerView { stream, domain, consumer, .. } = view;
    let mut words =
        vec!["nats --no-context --server".to_owned(), quoted(&endpoint.url), "--creds".to_owned(), path(credentials)];
    words.extend(ca.as_deref().map(|ca| format!("--tlsca {}", path(ca))));
    let credentials = endpoint.credentials.current();
    let user = credentials.user();
    words.push(format!(
        "--inbox-prefix _INBOX_{user} --js-domain {domain} consumer next {stream} {consumer} --count 10"
    ));
    words.join(" ")
}

/// The absolute path, so that the command works in any folder.
fn path(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    quoted(&absolute.to_string_lossy())
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | ':' | '_' | '-' | ',');
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell_where_necessary() {
        for plain in ["nats://10.0.0.1:4222", "/etc/otherix/ann_1.creds"] {
            assert_eq!(quoted(plain), plain);
        }
        assert_eq!(quoted("/home/ann b/a'b.creds"), r"'/home/ann b/a'\''b.creds'");
        assert_eq!(quoted(""), "''");
    }
}

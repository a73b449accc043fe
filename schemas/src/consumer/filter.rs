//! Which events a consumer is sent: subjects of the stream, which may have wildcards.

use crate::event::Event;
use crate::subject::STREAM_SUBJECTS;

/// Longest filter, in bytes.
const LENGTH_MAX: usize = 255;

/// Why a text selects no events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error("`{0}` is not the type of an event, such as `network.created`")]
    Type(String),
    #[error("`{0}` is not a subject: tokens separated by dots, `*` for any token, `>` at the end for any others")]
    Syntax(String),
    #[error("`{0}` matches no event: the subjects of events are {events}", events = STREAM_SUBJECTS.join(", "))]
    NoEvent(String),
    #[error("has `{0}` and `{1}`, which partly match the same events: use one that covers both, or separate ones")]
    Overlap(String, String),
}

/// The subject of events of a type without its version, such as `network.created`.
pub(super) fn of_type(name: &str) -> Result<String, FilterError> {
    let declared = Event::declarations().find(|declared| {
        name.split_once('.').is_some_and(|parts| parts == (declared.aggregate(), declared.event_name()))
    });
    let declared = declared.ok_or_else(|| FilterError::Type(name.to_owned()))?;
    let (family, aggregate, event) = (declared.family.token(), declared.aggregate(), declared.event_name());
    Ok(format!("otherix.{family}.v1.{aggregate}.{event}.*"))
}

/// Checks a subject that a client has chosen.
pub(super) fn of_subject(subject: &str) -> Result<String, FilterError> {
    let is_token = |token: &str| {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '>');
        token == "*" || (!token.is_empty() && token.chars().all(plain))
    };
    let tokens = subject.strip_suffix(".>").unwrap_or(subject);
    let is_subject = subject == ">" || tokens.split('.').all(is_token);
    if subject.len() > LENGTH_MAX || !is_subject {
        return Err(FilterError::Syntax(subject.to_owned()));
    }
    if STREAM_SUBJECTS.into_iter().any(|events| overlap(subject, events)) {
        Ok(subject.to_owned())
    } else {
        Err(FilterError::NoEvent(subject.to_owned()))
    }
}

/// Sorts filters, and leaves out those whose events another one has.
///
/// # Errors
/// If two of them have some events in common: `JetStream` refuses that.
pub(super) fn simplified(mut filters: Vec<String>) -> Result<Vec<String>, FilterError> {
    filters.sort();
    filters.dedup();
    let is_covered = |filter: &String| filters.iter().any(|other| other != filter && covers(other, filter));
    let kept: Vec<String> = filters.iter().filter(|filter| !is_covered(filter)).cloned().collect();
    for (index, filter) in kept.iter().enumerate() {
        if let Some(other) = kept.iter().skip(index + 1).find(|other| overlap(filter, other)) {
            return Err(FilterError::Overlap(filter.clone(), other.clone()));
        }
    }
    Ok(kept)
}

/// Whether every subject that `inner` matches is matched by `outer`.
fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Whether some subject is matched by both.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_declared_events() {
        assert_eq!(of_type("network.created").unwrap(), "otherix.evt.v1.network.created.*");
        assert_eq!(of_type("user.revoked").unwrap(), "otherix.adm.v1.user.revoked.*");
        assert_eq!(of_type("node.reconciled").unwrap(), "otherix.out.v1.node.reconciled.*");
        for bad in ["", "network", "network.painted", "dev.otherix.network.created.v1", "network.*"] {
            assert!(of_type(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn subjects_must_match_events() {
        for good in [">", "otherix.>", "otherix.evt.v1.>", "*.evt.v1.vm.*.x", "otherix.adm.v1.user.*.*"] {
            assert_eq!(of_subject(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "otherix..evt", "otherix.>.evt", "otherix.e*", "a>", "otherix.evt v1", "ä.>", "otherix."]
        {
            assert!(matches!(of_subject(bad), Err(FilterError::Syntax(_))), "{bad}");
        }
        for none in ["live.>", "otherix.req.v1.>", "otherix.evt.v2.>", "otherix", "$JS.API.>", "*"] {
            assert!(matches!(of_subject(none), Err(FilterError::NoEvent(_))), "{none}");
        }
    }

    #[test]
    fn filters_are_simplified_unless_they_partly_overlap() {
        let simplify = |filters: &[&str]| simplified(filters.iter().map(|&filter| filter.to_owned()).collect());
        assert_eq!(simplify(&["b.>", "a.x", "b.c.*", "a.x"]).unwrap(), ["a.x", "b.>"]);
        assert_eq!(simplify(&["a.*", "a.>"]).unwrap(), ["a.>"]);
        assert_eq!(
            simplify(&["a.b", "a.c.>", "a.*.x"]).unwrap_err(),
            FilterError::Overlap("a.*.x".into(), "a.c.>".into())
        );
        assert_eq!(simplify(&["a.*.c", "*.b.c"]).unwrap_err(), FilterError::Overlap("*.b.c".into(), "a.*.c".into()));
        assert_eq!(simplify(&["a", "a.b"]).unwrap(), ["a", "a.b"]);
        assert_eq!(simplify(&["a.b", "a.b.>"]).unwrap(), ["a.b", "a.b.>"], "`>` is at least one token");
    }
}

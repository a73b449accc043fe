use super::*;

const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
const START: &str = "[16244] 2026/11/29 19:13:42.958629 [ERR] 192.0.2.7:43422 - cid:23";

fn label(key: &str) -> String {
    format!("\"AAOY5KTDYLAEQ6XLNARUBDORKZVLUIZJON6I2QF24UCF4RJ2B3R44EZI/CLIENTS/jwt:{key}\"")
}

fn parse(line: &str) -> Option<Violation> {
    Violation::parse(&Line { head: line, tail: line })
}

#[test]
fn reads_the_lines_of_the_server() {
    let found = |what: &str| parse(&format!("{START} - \"v2.16.0:python3:audit\" - {} - {what}", label(KEY))).unwrap();
    let violation = found("Publish Violation - Subject \"otherix.evt.v1.x\"");
    let (key, host, client) = (KEY.to_owned(), Some("192.0.2.7".to_owned()), Some("audit".to_owned()));
    let (attempt, subject) = (Attempt::Publish, Some("otherix.evt.v1.x".to_owned()));
    assert_eq!(violation, Violation { key, host, client, attempt, subject });
    let violation = found(r#"Publish Violation - Reply "a\"b\\""#);
    assert_eq!((violation.attempt, violation.subject.as_deref()), (Attempt::Reply, Some(r#"a\"b\\"#)));
    for what in [r#"Subject "$SYS.>", SID 1"#, r#"Subject "$SYS.>", Queue: "q", SID 2"#] {
        let violation = found(&format!("Subscription Violation - {what}"));
        assert_eq!((violation.attempt, violation.subject.as_deref()), (Attempt::Subscribe, Some("$SYS.>")));
    }
    let nameless = parse(&format!("{START} - {} - Publish Violation - Subject \"x\"", label(KEY))).unwrap();
    assert_eq!((nameless.key.as_str(), nameless.client), (KEY, None));
}

#[test]
fn a_client_that_writes_parts_of_the_line_itself_is_named_nevertheless() {
    let victim = UserKey::from_bytes([9; 32]);
    let forged = format!(" - {} - Publish Violation - Subject \"x\"", label(victim.as_str()));
    // The name is a format: the subject is in its place, unquoted, and missing where it belongs.
    for (name, subject) in [
        (format!("v1:x:evil\"{forged}"), "%!q(MISSING)"),
        (format!("v1:x:evil{forged}%!s(MISSING)"), "\"x\""),
        ("v1:x:a\" - cid:9 - \"".to_owned(), "%!q(BADINDEX)"),
    ] {
        let line = format!("{START} - \"{name}\" - {} - Publish Violation - Subject {subject}", label(KEY));
        let violation = parse(&line).unwrap();
        assert_eq!((violation.key.as_str(), violation.host.as_deref()), (KEY, Some("192.0.2.7")), "{line}");
        assert_eq!(violation.subject.is_some(), subject.starts_with('"'), "{line}");
    }
}

#[test]
fn of_a_long_line_the_end_names_the_user() {
    let end = format!("x\" - {} - Publish Violation - Subject %!q(MISSING)", label(KEY));
    for (head, host) in [(START, Some("192.0.2.7")), ("", None)] {
        let violation = Violation::parse(&Line { head, tail: &end }).unwrap();
        assert_eq!((violation.key.as_str(), violation.host.as_deref()), (KEY, host));
    }
}

#[test]
fn other_lines_are_no_violations() {
    for line in [
        "",
        "[1] 2026/11/29 19:13:40.086983 [INF] Server is ready",
        "[1] 2026/11/29 19:13:43.162894 [ERR] 127.0.0.1:43428 - cid:25 - authentication error - User \"bob\"",
        " - Publish Violation - Subject \"x\"",
        &format!("{START} - \"x/jwt:nobody\" - Publish Violation - Subject \"x\""),
    ] {
        assert_eq!(parse(line), None, "{line}");
    }
}

#[test]
fn subjects_have_the_permission_that_they_are_about() {
    for (subject, expected) in [
        (format!("otherix.req.v1.{KEY}.network.create"), Some(Permission::NetworkManage)),
        ("otherix.req.v1.other.consumer.create".to_owned(), Some(Permission::AuditRead)),
        (format!("otherix.req.v1.{KEY}.network.paint"), None),
        ("otherix.req.v1.>".to_owned(), None),
        ("otherix.hb.v1.x".to_owned(), Some(Permission::NodeReport)),
        ("$JS.events.API.CONSUMER.MSG.NEXT.OTHERIX_EVENTS.x".to_owned(), Some(Permission::AuditRead)),
        ("$JS.ACK.OTHERIX_EVENTS.x.1.1.1.1.0".to_owned(), Some(Permission::AuditRead)),
        ("live.otherix.evt.v1.>".to_owned(), Some(Permission::EventRead)),
        ("live.otherix.adm.v1.>".to_owned(), Some(Permission::AuditRead)),
        ("live.otherix.>".to_owned(), Some(Permission::AuditRead)),
        ("otherix.evt.v1.x".to_owned(), None),
        ("$SYS.>".to_owned(), None),
    ] {
        assert_eq!(permission(&subject), expected, "{subject}");
    }
}

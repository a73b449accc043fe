//! Promises of a test's namespace: nothing in it but `lo`, nothing of it outside, for the thread and what it starts.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::{fs, thread};

use otherix_testkit::{nats::NatsServer, netns};
use serde_json::Value;

fn names(links: &Value) -> Vec<&str> {
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap()).collect()
}

#[test]
fn a_new_namespace_has_only_lo_and_it_is_up() {
    netns::enter_new();
    let links = netns::ip_json(&["link", "show"]);
    assert_eq!(names(&links), ["lo"]);
    assert!(links[0]["flags"].as_array().unwrap().contains(&"UP".into()), "{links}");
}

#[test]
fn what_is_made_inside_is_not_seen_outside() {
    let outside = netns::ip_json(&["link", "show"]);
    thread::spawn(|| {
        netns::enter_new();
        netns::sh("ip link add br-testkit type bridge\nip link set br-testkit up");
        let bridge = netns::link("br-testkit").unwrap();
        assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
    })
    .join()
    .unwrap();
    assert_eq!(names(&netns::ip_json(&["link", "show"])), names(&outside));
    assert!(netns::link("br-testkit").is_none());
}

#[test]
fn a_nats_server_started_inside_is_inside() {
    netns::enter_new();
    let server = NatsServer::start();
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_eq!(fs::read_link(format!("/proc/{}/ns/net", server.pid())).unwrap(), own);
    assert_ne!(fs::read_link("/proc/self/ns/net").unwrap(), own, "the process itself stays outside");
}

#[test]
#[should_panic(expected = "Cannot find device")]
fn a_command_that_fails_is_reported_with_its_words() {
    netns::enter_new();
    netns::sh("ip link set br-absent up");
}

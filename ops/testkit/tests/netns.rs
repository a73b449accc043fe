//! Properties of a test's namespace: it has only `lo`, it is isolated, and threads and processes inherit it.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::{fs, thread};

use otherix_testkit::{nats::NatsServer, netns};
use serde_json::Value;

fn names(links: &Value) -> Vec<&str> {
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap()).collect()
}

#[test]
fn new_namespace_has_only_lo() {
    netns::enter_new();
    let links = netns::ip_json(&["link", "show"]);
    assert_eq!(names(&links), ["lo"]);
    assert!(links[0]["flags"].as_array().unwrap().contains(&"UP".into()), "{links}");
}

#[test]
fn devices_are_isolated() {
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
fn processes_inherit_the_namespace() {
    netns::enter_new();
    let server = NatsServer::start();
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_eq!(fs::read_link(format!("/proc/{}/ns/net", server.pid())).unwrap(), own);
    assert_ne!(fs::read_link("/proc/self/ns/net").unwrap(), own, "the process itself stays outside");
}

#[test]
#[should_panic(expected = "Cannot find device")]
fn reports_output_of_failed_command() {
    netns::enter_new();
    netns::sh("ip link set br-absent up");
}

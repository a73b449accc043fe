//! Sockets and subscriptions against the kernel. Tests: the messages of a datagram are processed in order, and a
//! refusal does not stop those that follow; a refusal has the kernel's explanation; a dump contains every object; a
//! subscription that was not read in time reports dropped notifications, and continues.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use otherix_netlink::{
    Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, Protocol, Socket, Subscription, SubscriptionError, find,
    generic,
};
use otherix_testkit::netns::{enter_new, link, sh};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const RTNLGRP_LINK: u32 = 1;
const EEXIST: i32 = 17;
const EOPNOTSUPP: i32 = 95;

fn create(name: &str, kind: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO);
    message.push(&[0; 16]).put_string(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
        info.put(IFLA_INFO_KIND, kind.as_bytes());
    });
    message
}

fn by_name(kind: u16, name: &str) -> Message {
    let mut message = Message::new(kind, 0);
    message.push(&[0; 16]).put_string(IFLA_IFNAME, name);
    message
}

fn name(payload: &[u8]) -> String {
    let name = find(&payload[16..], IFLA_IFNAME).unwrap().value;
    String::from_utf8(name.strip_suffix(&[0]).unwrap().to_vec()).unwrap()
}

#[test]
fn a_batch_is_processed_in_order_and_past_refusals() {
    enter_new();
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let messages = vec![
        create("br0", "bridge"),
        create("br0", "bridge"),
        by_name(RTM_GETLINK, "br0"),
        create("br1", "no-such-kind"),
        by_name(RTM_DELLINK, "br0"),
        by_name(RTM_GETLINK, "br0"),
    ];
    let mut found = Vec::new();
    let outcomes = socket.exchange(messages, |index, reply| found.push((index, name(reply.payload)))).unwrap();
    let errors: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(|refusal| refusal.errno())).collect();
    assert_eq!(errors, [None, Some(EEXIST), None, Some(EOPNOTSUPP), None, Some(19)]);
    assert!(found.contains(&(2, "br0".to_owned())), "{found:?}");
    let refusal = outcomes[3].as_ref().unwrap_err();
    assert_eq!(refusal.to_string(), "Operation not supported (os error 95): Unknown device type");
    assert_eq!(link("br0"), None);
}

#[test]
fn a_dump_contains_every_object() {
    enter_new();
    sh("for i in $(seq 200); do ip link add br$i type bridge; done");
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut message = Message::new(RTM_GETLINK, NLM_F_DUMP);
    message.push(&[0; 16]);
    let mut names = Vec::new();
    let completion = socket.request(message, |reply| names.push(name(reply.payload))).unwrap();
    assert!(!completion.interrupted);
    assert_eq!(names.iter().filter(|name| name.starts_with("br")).count(), 200);
}

#[test]
fn generic_families_are_resolved() {
    let mut socket = Socket::open(Protocol::Generic).unwrap();
    assert_eq!(generic::resolve_family(&mut socket, "nlctrl").unwrap(), Some(0x10));
    assert_eq!(generic::resolve_family(&mut socket, "no-such-family").unwrap(), None);
}

#[test]
fn dropped_notifications_are_reported_and_the_subscription_continues() {
    enter_new();
    let mut subscription = Subscription::open(Protocol::Route, &[RTNLGRP_LINK], 1).unwrap();
    assert!(subscription.check_readable().is_err());
    let mut socket = Socket::open(Protocol::Route).unwrap();
    for number in 0..16 {
        socket.request(create(&format!("br{number}"), "bridge"), |_| {}).unwrap();
    }
    subscription.check_readable().unwrap();
    assert!(matches!(subscription.drain(1000, |_| {}), Err(SubscriptionError::Overrun)));
    assert!(subscription.check_readable().is_err());
    socket.request(by_name(RTM_DELLINK, "br0"), |_| {}).unwrap();
    let mut names = Vec::new();
    subscription.drain(1000, |reply| names.extend((reply.kind == RTM_DELLINK).then(|| name(reply.payload)))).unwrap();
    assert_eq!(names, ["br0"]);
}

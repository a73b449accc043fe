//! What guests are answered, as another implementation (`hickory-proto`) writes and reads it.

use std::str::FromStr;

use hickory_proto::op::{Edns, Message as Other, MessageType, OpCode, Query as OtherQuery, ResponseCode};
use hickory_proto::rr::{DNSClass, Name as OtherName, RData, RecordType};
use otherix_runtime::SystemRuntime;
use proptest::prelude::*;

use super::*;
use crate::dns::Upstreams;

const WEB: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 5);
const DB: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 6);

/// A network with two VMs, and with a relay or without one.
fn zone(relays: bool) -> Zone {
    let upstreams = Upstreams::new(vec!["192.0.2.1:53".parse().unwrap()]);
    let relay = relays.then(|| Arc::new(Relay::new(SystemRuntime::shared(), upstreams)));
    let zone = Zone::new("app".to_owned(), (Ipv4Addr::new(10, 20, 0, 0), 23), relay);
    let again = ("web".to_owned(), Ipv4Addr::new(10, 20, 0, 9));
    zone.set_names(Names::new([("web".to_owned(), WEB), ("db-1".to_owned(), DB), again]));
    zone
}

fn question(name: &str, kind: RecordType) -> Other {
    let mut message = Other::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(OtherQuery::query(OtherName::from_str(name).unwrap(), kind));
    message
}

fn bytes(message: &Other) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// Returns the answer, and `None` if the question is relayed.
fn asked(zone: &Zone, message: &Other) -> Option<Other> {
    match zone.decide(&bytes(message)) {
        Decision::Ignore => panic!("not answered: {message:?}"),
        Decision::Relay(..) => None,
        Decision::Answer(answer) => {
            assert!(answer.len() <= 512, "{} bytes", answer.len());
            let answer = Other::from_vec(&answer).unwrap();
            assert_eq!((answer.id, answer.message_type), (message.id, MessageType::Response));
            Some(answer)
        }
    }
}

/// Returns the code, the data, and the owners of SOA records.
fn answer(zone: &Zone, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, Vec<String>) {
    let answer = asked(zone, &question(name, kind)).unwrap();
    assert_eq!(answer.queries[0].name().to_lowercase(), OtherName::from_str(name).unwrap().to_lowercase());
    assert!(answer.answers.iter().all(|record| record.ttl == 1 && record.dns_class == DNSClass::IN));
    let data = answer.answers.iter().map(|record| record.data.to_string());
    let soa = answer.authorities.iter().map(|record| {
        let RData::SOA(soa) = &record.data else { panic!("{record:?}") };
        assert_eq!((soa.minimum, record.ttl, &soa.mname), (1, 1, &record.name));
        record.name.to_string()
    });
    (answer.metadata.response_code, data.collect(), soa.collect())
}

const SOA_OF_ALL: &str = "otherix.internal.";

#[test]
fn names_of_the_network_have_their_addresses() {
    for zone in [zone(false), zone(true)] {
        for name in ["web.app.otherix.internal.", "WeB.aPp.OtheriX.INTERNAL."] {
            assert_eq!(answer(&zone, name, RecordType::A), (ResponseCode::NoError, vec!["10.20.0.5".into()], vec![]));
        }
        let message = asked(&zone, &question("web.app.otherix.internal.", RecordType::A)).unwrap();
        assert!(message.metadata.authoritative && message.metadata.recursion_desired && !message.metadata.truncation);
        assert_eq!(message.metadata.recursion_available, zone.relay.is_some());
        let ptr = answer(&zone, "6.0.20.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(ptr, (ResponseCode::NoError, vec!["db-1.app.otherix.internal.".into()], vec![]));
        zone.set_names(Names::default());
        let gone = answer(&zone, "web.app.otherix.internal.", RecordType::A);
        assert_eq!(gone, (ResponseCode::NXDomain, vec![], vec![SOA_OF_ALL.into()]), "deleted");
    }
}

#[test]
fn what_has_no_such_record_has_no_data_and_what_does_not_exist_is_no_name() {
    let zone = zone(true);
    for (name, kind, code, soa) in [
        ("web.app.otherix.internal.", RecordType::AAAA, ResponseCode::NoError, SOA_OF_ALL),
        ("web.app.otherix.internal.", RecordType::TXT, ResponseCode::NoError, SOA_OF_ALL),
        ("web.app.otherix.internal.", RecordType::SOA, ResponseCode::NoError, SOA_OF_ALL),
        ("app.otherix.internal.", RecordType::A, ResponseCode::NoError, SOA_OF_ALL),
        ("otherix.internal.", RecordType::A, ResponseCode::NoError, SOA_OF_ALL),
        ("none.app.otherix.internal.", RecordType::A, ResponseCode::NXDomain, SOA_OF_ALL),
        ("none.app.otherix.internal.", RecordType::SOA, ResponseCode::NXDomain, SOA_OF_ALL),
        ("a.web.app.otherix.internal.", RecordType::A, ResponseCode::NXDomain, SOA_OF_ALL),
        // The names of other networks are nobody's here.
        ("other.otherix.internal.", RecordType::A, ResponseCode::NXDomain, SOA_OF_ALL),
        ("web.other.otherix.internal.", RecordType::A, ResponseCode::NXDomain, SOA_OF_ALL),
        ("5.0.20.10.in-addr.arpa.", RecordType::A, ResponseCode::NoError, "0.20.10.in-addr.arpa."),
        ("7.1.20.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain, "1.20.10.in-addr.arpa."),
        ("5.2.20.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain, "2.20.10.in-addr.arpa."),
        ("20.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NoError, "10.in-addr.arpa."),
        ("x.0.20.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain, "0.20.10.in-addr.arpa."),
        ("05.0.20.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain, "0.20.10.in-addr.arpa."),
        ("9.5.0.20.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain, "5.0.20.10.in-addr.arpa."),
        ("1.1.168.192.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain, "1.168.192.in-addr.arpa."),
        ("16.172.in-addr.arpa.", RecordType::NS, ResponseCode::NoError, "172.in-addr.arpa."),
        ("1.0.0.127.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain, "0.0.127.in-addr.arpa."),
        ("1.2.d.f.ip6.arpa.", RecordType::PTR, ResponseCode::NXDomain, "2.d.f.ip6.arpa."),
        ("9.e.f.ip6.arpa.", RecordType::PTR, ResponseCode::NXDomain, "e.f.ip6.arpa."),
    ] {
        assert_eq!(answer(&zone, name, kind), (code, vec![], vec![soa.into()]), "{name} {kind}");
    }
    let (code, data, soa) = answer(&zone, "otherix.internal.", RecordType::SOA);
    assert_eq!((code, data.len(), soa.len()), (ResponseCode::NoError, 1, 0));
}

#[test]
fn other_names_are_relayed_only_where_there_is_a_way_out() {
    let foreign = [
        "example.com.",
        ".",
        "internal.",
        "web.",
        "notherix.internal.",
        "xotherix.internal.",
        "1.113.0.203.in-addr.arpa.",
        "172.in-addr.arpa.",
        "1.15.172.in-addr.arpa.",
        "8.b.d.0.1.0.0.2.ip6.arpa.",
        "in-addr.arpa.",
    ];
    for name in foreign {
        let asked = |zone: &Zone| asked(zone, &question(name, RecordType::A));
        assert!(asked(&zone(true)).is_none(), "{name}");
        let refused = asked(&zone(false)).unwrap();
        assert_eq!(refused.metadata.response_code, ResponseCode::Refused, "{name}");
        assert!(!refused.metadata.recursion_available && !refused.metadata.authoritative);
    }
    // One label, which ends with the bytes of two.
    let mut tricky = question("example.", RecordType::A);
    tricky.queries[0].set_name(OtherName::from_labels([&b"x\x07otherix\x08internal"[..]]).unwrap());
    assert!(asked(&zone(true), &tricky).is_none());
}

#[test]
fn options_are_answered_with_options() {
    let mut message = question("web.app.otherix.internal.", RecordType::A);
    assert!(asked(&zone(true), &message).unwrap().edns.is_none());
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    message.set_edns(edns.clone());
    let answer = asked(&zone(true), &message).unwrap();
    assert_eq!(answer.answers.len(), 1);
    let answered = answer.edns.unwrap();
    assert!(answered.max_payload() == 1232 && answered.version() == 0 && answered.flags().dnssec_ok);
    message.set_edns(edns.set_version(1).clone());
    // BADVERS, which has the number of BADSIG.
    assert_eq!(u16::from(asked(&zone(true), &message).unwrap().metadata.response_code), 16);
}

/// Returns the code with which a message is answered, if it is.
fn code(zone: &Zone, bytes: &[u8]) -> Option<u8> {
    match zone.decide(bytes) {
        Decision::Ignore => None,
        Decision::Answer(answer) => Some(crate::dns::message::rcode(&answer)),
        Decision::Relay(..) => panic!("relayed"),
    }
}

#[test]
fn what_is_no_question_is_not_answered_or_with_an_error() {
    let zone = zone(false);
    let good = bytes(&question("web.app.otherix.internal.", RecordType::A));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        code(&zone, &bytes)
    };
    const FORMERR: Option<u8> = Some(1);
    const NOTIMP: Option<u8> = Some(4);
    const REFUSED: Option<u8> = Some(5);
    assert_eq!(code(&zone, &good), Some(0));
    assert_eq!(with(2, 0x81), None, "an answer");
    for opcode in 1..16 {
        assert_eq!(with(2, opcode << 3), NOTIMP, "opcode {opcode}");
    }
    for (at, what) in [(5, "questions"), (7, "answers"), (9, "authorities"), (11, "additional records")] {
        assert_eq!(with(at, 2), FORMERR, "two {what}");
    }
    assert_eq!(with(5, 0), FORMERR, "no question");
    assert_eq!(with(12, 0xc0), FORMERR, "a compressed name");
    assert_eq!(with(12, 0x40), FORMERR, "a reserved label");
    assert_eq!(with(12, 63), FORMERR, "a label that is too long");
    for kind in [128, 249, 250, 251, 252, 253, 254, 255, 41] {
        assert_eq!(with(good.len() - 3, kind), REFUSED, "type {kind}");
    }
    for class in [3, 4, 254, 255] {
        assert_eq!(with(good.len() - 1, class), REFUSED, "class {class}");
    }
    for length in 0..good.len() {
        assert_eq!(code(&zone, &good[..length]), if length < 12 { None } else { FORMERR }, "{length} bytes");
    }
    assert_eq!(code(&zone, &[&good[..], &[0]].concat()), FORMERR, "bytes after the message");
    // A name of 255 bytes, and one of 256.
    let long = |last: usize| {
        let mut bytes = good[..12].to_vec();
        for length in [63, 63, 63, last] {
            bytes.push(u8::try_from(length).unwrap());
            bytes.extend(vec![b'a'; length]);
        }
        code(&zone, &[&bytes[..], &[0, 0, 1, 0, 1]].concat())
    };
    assert_eq!((long(61), long(62)), (REFUSED, FORMERR));
    // Two options of EDNS, and one with a name.
    let option = [0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0];
    let with_options = |options: &[u8], count: u8| {
        let mut bytes = [&good[..], options].concat();
        bytes[11] = count;
        code(&zone, &bytes)
    };
    assert_eq!(with_options(&option, 1), Some(0));
    assert_eq!(with_options(&[option, option].concat(), 2), FORMERR);
    assert_eq!(with_options(&[&[1, b'a'][..], &option].concat(), 1), FORMERR);
    assert_eq!(with_options(&[&[0xc0, 12][..], &option[1..]].concat(), 1), FORMERR);
    assert_eq!(with_options(&option, 5), FORMERR);
}

#[test]
fn only_the_answer_to_the_question_is_one() {
    let good = bytes(&question("web.example.", RecordType::A));
    let Some(Message::Query(query)) = Message::read(&good) else { panic!("no question") };
    let mut answer = good.clone();
    answer[2] |= 0x80;
    let is_answer = |bytes: &[u8]| crate::dns::message::answers(bytes, [0x12, 0x34], query.question());
    assert!(is_answer(&answer) && is_answer(&answer.to_ascii_uppercase()[..]));
    assert!(!is_answer(&good), "a question");
    for at in [0, 1, 5, 13, 24, answer.len() - 3, answer.len() - 1] {
        let mut other = answer.clone();
        other[at] ^= 1;
        assert!(!is_answer(&other), "byte {at}");
    }
    for length in 0..answer.len() {
        assert!(!is_answer(&answer[..length]), "{length} bytes");
    }
}

/// What is answered to any message is smaller than what every client receives, and never an answer to an answer.
fn assert_answer(zone: &Zone, message: &[u8]) {
    match zone.decide(message) {
        Decision::Ignore => {}
        Decision::Answer(answer) => {
            assert!(message[2] & 0x80 == 0 && answer.len() <= 512, "{} bytes", answer.len());
            assert!(answer[..2] == message[..2] && answer[2] & 0x80 != 0);
            Other::from_vec(&answer).unwrap();
        }
        Decision::Relay(query, _) => {
            let (failed, truncated) = (query.error(Rcode::ServFail), query.truncated());
            assert!(failed.len() <= 512 && truncated.len() <= query.size());
            let [failed, truncated] = [failed, truncated].map(|answer| Other::from_vec(&answer).unwrap());
            assert!(failed.metadata.response_code == ResponseCode::ServFail && truncated.metadata.truncation);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_message_causes_a_panic(message in prop::collection::vec(any::<u8>(), 0..700), relays: bool) {
        assert_answer(&zone(relays), &message);
    }

    #[test]
    fn a_damaged_question_causes_no_panic(
        changes in prop::collection::vec((0..80_usize, any::<u8>()), 0..8),
        rest in prop::collection::vec(any::<u8>(), 0..40),
        name in "([a-z0-9]{1,9}\\.){0,6}(app\\.otherix\\.internal|20\\.10\\.in-addr\\.arpa|d\\.f\\.ip6\\.arpa)\\.",
        kind in 0..300_u16,
        relays: bool,
    ) {
        let mut message = question(&name, RecordType::from(kind));
        message.set_edns(Edns::new());
        let mut message = bytes(&message);
        message.extend(rest);
        for (at, byte) in changes {
            if let Some(target) = message.get_mut(at) {
                *target = byte;
            }
        }
        assert_answer(&zone(relays), &message);
    }
}

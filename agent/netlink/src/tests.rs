use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn parsers_accept_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for attribute in attributes(&bytes).map_while(Result::ok) {
            attribute.nested().for_each(drop);
        }
        for reply in replies(&bytes) {
            Refusal::parse(&reply, false);
            Refusal::parse(&reply, true);
        }
    }

    #[test]
    fn attributes_read_back_as_written(
        values in prop::collection::vec((1u16..0x3fff, prop::collection::vec(any::<u8>(), 0..50)), 0..20),
    ) {
        let mut message = Message::new(1, 0);
        message.nest(7, |nested| {
            for (kind, value) in &values {
                nested.put(*kind, value);
            }
        });
        let outer: Vec<_> = attributes(message.payload()).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(outer.len(), 1);
        prop_assert_eq!(outer[0].kind, 7);
        let nested: Vec<_> = outer[0].nested().map(|attribute| {
            let Attribute { kind, value } = attribute.unwrap();
            (kind, value.to_vec())
        }).collect();
        prop_assert_eq!(nested, values);
    }
}

#[test]
fn framing_completes_the_header_and_pads() {
    let mut message = Message::new(0x1234, NLM_F_CREATE);
    message.push(&[1, 2, 3]);
    let framed = message.frame(0x8000_0001);
    let mut expected = 19_u32.to_ne_bytes().to_vec();
    expected.extend(0x1234_u16.to_ne_bytes());
    expected.extend(0x405_u16.to_ne_bytes());
    expected.extend(0x8000_0001_u32.to_ne_bytes());
    expected.extend([0, 0, 0, 0, 1, 2, 3, 0]);
    assert_eq!(framed, expected);
    let mut dump = Message::new(1, NLM_F_DUMP);
    assert_eq!(dump.frame(1)[6..8], 0x301_u16.to_ne_bytes(), "NLMSG_DONE acknowledges a dump");
}

#[test]
fn a_value_that_is_too_long_is_truncated() {
    let mut message = Message::new(1, 0);
    message.put(1, &vec![9; 70_000]).put(2, &[8]);
    let kinds: Vec<_> = attributes(message.payload()).map(|attribute| attribute.unwrap().kind).collect();
    assert_eq!(kinds, [1, 2]);
}

#[test]
fn the_explanation_is_read_after_a_capped_or_complete_request() {
    let text = [[9_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat(), b"nope.\0\0\0".to_vec()].concat();
    let request: Vec<u8> = [20_u32.to_ne_bytes().as_slice(), &[0; 12], &[7, 7, 7, 7]].concat();
    for (flags, request) in [(0x300, &request[..16]), (0x200, &request[..])] {
        let payload = [&(-95_i32).to_ne_bytes()[..], request, &text].concat();
        let refusal = Refusal::parse(&Reply { kind: 2, flags, sequence: 1, payload: &payload }, false).unwrap();
        assert_eq!((refusal.errno(), refusal.explanation()), (95, Some("nope.")));
        assert_eq!(refusal.to_string(), "Operation not supported (os error 95): nope");
    }
}

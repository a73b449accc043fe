//! The filter by itself, on frames: it accepts what is answered, and nothing else.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::dhcp::Lease;
use crate::frame::Mac;

const MAC: Mac = [0x52, 0x54, 0, 1, 2, 3];

fn guest(answers_for_gateway: bool) -> Guest {
    let lease = Lease {
        address: Ipv4Addr::new(10, 20, 0, 5),
        netmask: Ipv4Addr::new(255, 255, 255, 0),
        server: Ipv4Addr::new(10, 20, 0, 1),
        is_router: true,
        mtu: 1500,
    };
    Guest { mac: MAC, lease, gateway_mac: [2, 0, 0, 0, 0, 1], answers_for_gateway, names: None }
}

/// Runs the program as the kernel does: a load outside of the frame drops it.
fn accepts(program: &[Instruction], frame: &[u8], has_tag: bool) -> bool {
    let load = |offset: u32, size: usize| {
        let at = usize::try_from(offset).unwrap();
        let bytes = frame.get(at..at + size)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    };
    let (mut accumulator, mut index, mut at) = (0_u32, 0_u32, 0);
    loop {
        let Instruction { code, skip: (then, or_else), value } = program[at];
        let jump = |condition: bool| usize::from(if condition { then } else { or_else });
        at += 1;
        let loaded = match code {
            LOAD_WORD if value == HAS_VLAN_TAG => Some(has_tag.into()),
            LOAD_WORD => load(value, 4),
            LOAD_HALF => load(value, 2),
            LOAD_BYTE => load(value, 1),
            LOAD_HALF_AFTER => load(index + value, 2),
            LOAD_BYTE_AFTER => load(index + value, 1),
            LOAD_HEADER_SIZE => match load(value, 1) {
                Some(byte) => {
                    index = (byte & 0xf) * 4;
                    Some(accumulator)
                }
                None => None,
            },
            IS_EQUAL => {
                at += jump(accumulator == value);
                Some(accumulator)
            }
            HAS_BITS => {
                at += jump(accumulator & value != 0);
                Some(accumulator)
            }
            RETURN => return value != 0,
            other => panic!("an instruction that this test does not know: {other:#x}"),
        };
        match loaded {
            Some(value) => accumulator = value,
            None => return false,
        }
    }
}

/// Returns a frame of the guest: what follows its source, in hex digits.
fn frame(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(char::is_ascii_hexdigit).collect();
    let rest = digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap());
    [0xff; 6].into_iter().chain(MAC).chain(rest).collect()
}

const DISCOVER: &str = "0800 45000024 00000000 40110000 00000000 ffffffff 0044 0043 0010 0000 0000000000000000";
const WITH_OPTIONS: &str =
    "0800 47000024 00000000 40110000 00000000 ffffffff 0101010101010101 0044 0043 0010 0000 0000000000000000";
const ECHO: &str = "0800 45000020 00000000 40010000 0a140005 0a140001 0800 0000 0000000000000000";
const ARP_REQUEST: &str = "0806 0001 0800 06 04 0001 525400010203 0a140005 000000000000 0a140001";

const QUESTION: &str =
    "0800 45000024 00000000 40110000 0a140005 0a140001 c000 0035 0010 0000 0000000000000000 0000000000000000";

#[test]
fn accepts_questions_for_the_gateway_and_nothing_else() {
    let program = dns_program(&guest(true));
    let to_gateway = |hex: &str| [&[2, 0, 0, 0, 0, 1][..], &frame(hex)[6..]].concat();
    let with_options = QUESTION.replace("0800 45", "0800 47").replace("0a140001 ", "0a140001 0101010101010101 ");
    for hex in [QUESTION, &with_options] {
        assert!(accepts(&program, &to_gateway(hex), false), "{hex}");
        assert!(!accepts(&program, &to_gateway(hex), true), "with a tag");
        assert!(!accepts(&program, &frame(hex), false), "to all hosts");
    }
    let mut of_another = to_gateway(QUESTION);
    of_another[11] ^= 1;
    assert!(!accepts(&program, &of_another, false), "from another MAC address");
    for (what, hex) in [
        ("another port", QUESTION.replace("c000 0035", "c000 0043")),
        ("from the port", QUESTION.replace("c000 0035", "0035 c000")),
        ("another source", QUESTION.replace("0a140005", "0a140006")),
        ("no source", QUESTION.replace("0a140005", "00000000")),
        ("another destination", QUESTION.replace("0a140001", "0a140002")),
        ("a first fragment", QUESTION.replace("00000000 4011", "00002000 4011")),
        ("another fragment", QUESTION.replace("00000000 4011", "00000001 4011")),
        ("TCP", QUESTION.replace("4011", "4006")),
        ("IPv6", QUESTION.replace("0800 45", "86dd 45")),
        ("DHCP", DISCOVER.to_owned()),
    ] {
        assert!(!accepts(&program, &to_gateway(&hex), false), "{what}");
    }
    for length in 0..38 {
        assert!(!accepts(&program, &to_gateway(QUESTION)[..length], false), "{length} bytes");
    }
}

#[test]
fn accepts_what_is_answered_and_nothing_else() {
    let (gateway, kernel) = (program(&guest(true)), program(&guest(false)));
    for hex in [DISCOVER, WITH_OPTIONS] {
        assert!(accepts(&gateway, &frame(hex), false) && accepts(&kernel, &frame(hex), false), "{hex}");
    }
    for hex in [ECHO, ARP_REQUEST] {
        assert!(accepts(&gateway, &frame(hex), false), "{hex}");
        assert!(!accepts(&kernel, &frame(hex), false), "{hex}, which the kernel answers");
    }
    for (what, hex) in [
        ("another port", DISCOVER.replace("0044 0043", "0044 0035")),
        ("the port of clients", DISCOVER.replace("0044 0043", "0043 0044")),
        (
            "the port in an option of IPv4",
            WITH_OPTIONS.replace("0044 0043", "0044 0035").replace("01010101", "00430043"),
        ),
        ("TCP", DISCOVER.replace("4011", "4006")),
        ("a first fragment", DISCOVER.replace("00000000 4011", "00002000 4011")),
        ("another fragment", DISCOVER.replace("00000000 4011", "00000001 4011")),
        ("IPv6", DISCOVER.replace("0800 45", "86dd 45")),
        ("an echo reply", ECHO.replace("0800 0000 ", "0000 0000 ")),
        ("echo of another host", ECHO.replace("0a140001", "0a140002")),
        ("ARP for another host", ARP_REQUEST.replace("0a140001", "0a140002")),
        ("an answer of ARP", ARP_REQUEST.replace("04 0001", "04 0002")),
        ("nothing", String::new()),
        ("an empty packet", "0800".to_owned()),
    ] {
        assert!(!accepts(&gateway, &frame(&hex), false), "{what}");
    }
    for hex in [DISCOVER, ECHO, ARP_REQUEST] {
        assert!(!accepts(&gateway, &frame(hex), true), "{hex} in a VLAN");
        let mut of_another = frame(hex);
        of_another[11] ^= 1;
        assert!(!accepts(&gateway, &of_another, false), "{hex} from another MAC address");
        of_another[11] ^= 1;
        of_another[6] ^= 1;
        assert!(!accepts(&gateway, &of_another, false), "{hex} from another MAC address");
    }
}

#[test]
fn the_program_is_one_that_the_kernel_takes() {
    for answers_for_gateway in [false, true] {
        let program = program(&guest(answers_for_gateway));
        let length = program.len();
        assert!(length < 64, "{length}");
        for (at, Instruction { skip: (then, or_else), .. }) in program[..length - 2].iter().enumerate() {
            let furthest = at + 1 + usize::from(*then.max(or_else));
            assert!(furthest < length, "instruction {at} jumps to {furthest} of {length}");
        }
        assert_eq!(program[length - 2..].iter().map(|last| last.value).collect::<Vec<_>>(), [0, RECEIVED_MAX]);
    }
}

fn almost_a_request() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let base = prop::sample::select(vec![DISCOVER, WITH_OPTIONS, ECHO, ARP_REQUEST]).prop_map(frame);
    let changes = prop::collection::vec((0..64_usize, any::<u8>()), 0..4);
    (base, changes, 0..80_usize, any::<bool>()).prop_map(|(mut frame, changes, length, gateway)| {
        for (at, byte) in changes {
            if let Some(target) = frame.get_mut(at) {
                *target = byte;
            }
        }
        frame.truncate(length.max(20));
        (frame, gateway)
    })
}

proptest! {
    /// The filter may accept more than is answered, such as messages that are malformed, but never less.
    #[test]
    fn what_is_answered_passes_the_filter((frame, gateway) in almost_a_request()) {
        let guest = guest(gateway);
        if guest.answer(&frame).is_some() {
            prop_assert!(accepts(&program(&guest), &frame, false), "{:02x?}", frame);
        }
    }
}

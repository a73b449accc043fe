//! Two peers with each other, without a network: what is lost, and what gets in, when things change; and that no bytes from
//! the wire make anything panic.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use super::*;

const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A peer as one side sees it, and its side's key.
struct Side {
    own: Own,
    peer: Peer,
    index: u32,
}

fn times() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

impl Side {
    fn make(&mut self) {
        self.index += 1;
        self.peer.make_state(&self.own, self.index, Instant::now());
    }

    fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut room = vec![0; 70_000];
        self.peer.seal(packet, &mut room).map(|length| room[..length].to_vec())
    }

    fn open(&mut self, message: &[u8]) -> (Opened, Vec<u8>) {
        let mut room = vec![0; 70_000];
        let opened = self.peer.open(FROM, message, &mut room, times());
        let length = match opened {
            Opened::Packet(length) | Opened::Reply(length) => length,
            Opened::Done | Opened::Refused => 0,
        };
        (opened, room[..length].to_vec())
    }
}

fn sides() -> (Side, Side) {
    let keys = [WgPrivateKey::generate().unwrap(), WgPrivateKey::generate().unwrap()];
    let publics = [keys[0].public(), keys[1].public()];
    let [one, other] = keys;
    let side = |key, public| Side { own: Own::new(key, 1), peer: Peer::new(public), index: 0 };
    let (mut one, mut other) = (side(one, publics[1]), side(other, publics[0]));
    one.make();
    other.make();
    (one, other)
}

/// A packet that says where it comes from and how long it is, as boringtun wants it.
fn packet(byte: u8) -> Vec<u8> {
    let mut packet = vec![byte; 40];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&[0, 40]);
    packet
}

/// From the first packet of one side to sessions on both.
fn shake(one: &mut Side, other: &mut Side) {
    let initiation = one.seal(&packet(1)).unwrap();
    assert_eq!(get_u32_le(&initiation, 0), Some(INITIATION));
    finish(one, other, &initiation);
}

fn finish(one: &mut Side, other: &mut Side, initiation: &[u8]) {
    let (opened, response) = other.open(initiation);
    assert!(matches!(opened, Opened::Reply(92)), "{opened:?}");
    assert!(other.peer.status(vec![]).last_handshake.is_none_or(|time| time < SystemTime::now()));
    let (opened, keepalive) = one.open(&response);
    assert!(matches!(opened, Opened::Reply(32)), "{opened:?}");
    assert_eq!(other.open(&keepalive).0, Opened::Done);
}

#[track_caller]
fn passes(one: &mut Side, other: &mut Side) {
    for (from, to) in [(0, 1), (1, 0)] {
        let sides = [&mut *one, &mut *other];
        let message = sides[from].seal(&packet(7)).unwrap();
        assert_eq!(get_u32_le(&message, 0), Some(DATA));
        assert_eq!(sides[to].open(&message), (Opened::Packet(40), packet(7)));
    }
}

#[test]
fn a_packet_waits_for_its_session_and_a_handshake_has_a_time() {
    let (mut one, mut other) = sides();
    let before = SystemTime::now();
    shake(&mut one, &mut other);
    let mut room = vec![0; 70_000];
    let length = one.peer.next_waiting(&mut room).unwrap();
    assert_eq!(other.open(&room[..length]), (Opened::Packet(40), packet(1)));
    assert_eq!(one.peer.next_waiting(&mut room), None);
    passes(&mut one, &mut other);
    for side in [&one, &other] {
        let time = side.peer.status(vec![]).last_handshake.unwrap();
        assert!(time >= before && time <= SystemTime::now());
    }
}

#[test]
fn what_is_repeated_or_changed_is_refused() {
    let (mut one, mut other) = sides();
    shake(&mut one, &mut other);
    let message = one.seal(&packet(3)).unwrap();
    assert_eq!(other.open(&message).0, Opened::Packet(40));
    assert_eq!(other.open(&message).0, Opened::Refused);
    let mut changed = one.seal(&packet(3)).unwrap();
    changed[20] ^= 1;
    assert_eq!(other.open(&changed).0, Opened::Refused);
    // A counter that only wraps: refused before boringtun adds to it.
    changed[8..16].fill(0xff);
    assert_eq!(other.open(&changed).0, Opened::Refused);
}

#[test]
fn another_preshared_key_loses_nothing() {
    let (mut one, mut other) = sides();
    shake(&mut one, &mut other);
    let psk = WgPresharedKey::from_hex(&"7".repeat(64)).unwrap();
    one.peer.set_preshared(psk.clone());
    assert!(one.peer.wants_state(&one.own));
    one.make();
    // Old sessions go on while the other side does not know yet: handshakes fail, packets pass.
    passes(&mut one, &mut other);
    let mut room = vec![0; 70_000];
    let length = one.peer.initiate(&mut room).unwrap();
    let (_, response) = other.open(&room[..length]);
    assert_eq!(one.open(&response).0, Opened::Refused);
    passes(&mut one, &mut other);
    other.peer.set_preshared(psk);
    other.make();
    passes(&mut one, &mut other);
    let length = other.peer.initiate(&mut room).unwrap();
    let on_its_way = one.seal(&packet(9)).unwrap();
    finish(&mut other, &mut one, &room[..length]);
    passes(&mut one, &mut other);
    // What was under way by the old session arrives, and later the old state goes.
    assert_eq!(other.open(&on_its_way), (Opened::Packet(40), packet(9)));
    assert!(other.peer.retire(Instant::now()).is_none());
    assert!(other.peer.retire(Instant::now() + OLD_REST).is_some());
    passes(&mut one, &mut other);
}

#[test]
fn keepalives_follow_their_interval_and_nothing_else_needs_new_state() {
    let (mut one, mut other) = sides();
    let mut room = vec![0; 70_000];
    let now = Instant::now();
    assert_eq!(one.peer.tick(&mut room, now), None);
    one.peer.endpoint = Some(([127, 0, 0, 1], 1).into());
    one.peer.set_keepalive(25);
    assert!(!one.peer.wants_state(&one.own));
    let length = one.peer.tick(&mut room, now).unwrap();
    finish(&mut one, &mut other, &room[..length]);
    let now = Instant::now();
    assert_eq!(one.peer.tick(&mut room, now + Duration::from_secs(24)), None);
    let length = one.peer.tick(&mut room, now + Duration::from_secs(26)).unwrap();
    assert_eq!(other.open(&room[..length]).0, Opened::Done);
    one.peer.set_keepalive(0);
    assert_eq!(one.peer.tick(&mut room, now + Duration::from_secs(99)), None);
}

#[test]
fn a_small_room_is_refused_and_not_written_to() {
    let (mut one, mut other) = sides();
    shake(&mut one, &mut other);
    let message = one.seal(&packet(3)).unwrap();
    assert_eq!(other.peer.open(FROM, &message, &mut [0; 71], times()), Opened::Refused);
    assert_eq!(one.peer.seal(&packet(3), &mut [0; 71]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Messages of every kind with anything in them, and true ones with bytes changed.
    #[test]
    fn no_bytes_from_the_wire_make_it_panic(
        kind in 0u32..6,
        length in prop_oneof![Just(148usize), Just(92), Just(64), Just(32), 0usize..200],
        bytes in prop::collection::vec(any::<u8>(), 200),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (mut one, mut other) = sides();
        let mut garbage = bytes[..length].to_vec();
        if garbage.len() >= 8 {
            garbage[..4].copy_from_slice(&kind.to_le_bytes());
            garbage[4..8].copy_from_slice(&((1_u32 << 8) | 1).to_le_bytes());
        }
        other.open(&garbage);
        let mut initiation = one.seal(&packet(1)).unwrap();
        let (_, response) = other.open(&initiation);
        for (at, byte) in &changes {
            let at = at.index(initiation.len());
            initiation[at] = *byte;
            other.open(&initiation);
            let mut response = response.clone();
            let at = at % response.len();
            response[at] = *byte;
            one.open(&response);
        }
        one.open(&response);
        let mut message = one.seal(&bytes).unwrap_or_default();
        other.open(&message);
        for (at, byte) in &changes {
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = *byte;
                other.open(&message);
            }
        }
        other.open(&garbage);
    }
}

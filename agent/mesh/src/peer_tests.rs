//! Two peers without a network. Tests: changes of keys lose no packets; replayed and forged messages are rejected; no
//! message causes a panic.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use super::*;

const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// One end of a session: its own key, and its view of the peer.
struct Side {
    local_key: LocalKey,
    peer: DevicePeer,
    /// The index of the current state.
    index: u32,
}

fn times() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

impl Side {
    fn create_state(&mut self) {
        self.index += 1;
        self.peer.create_state(&self.local_key, self.index, Instant::now());
    }

    fn encrypt(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        self.peer.encrypt(packet, &mut buffer).map(|length| buffer[..length].to_vec())
    }

    fn receive(&mut self, message: &[u8]) -> (MessageOutcome, Vec<u8>) {
        let mut buffer = vec![0; 70_000];
        let outcome = self.peer.receive(FROM, message, &mut buffer, times());
        let length = match outcome {
            MessageOutcome::Packet(length) | MessageOutcome::Reply(length) => length,
            MessageOutcome::Accepted | MessageOutcome::Old | MessageOutcome::Rejected => 0,
        };
        (outcome, buffer[..length].to_vec())
    }
}

fn sides() -> (Side, Side) {
    let keys = [WgPrivateKey::generate().unwrap(), WgPrivateKey::generate().unwrap()];
    let publics = [keys[0].public(), keys[1].public()];
    let [one, other] = keys;
    let side = |key, public| Side { local_key: LocalKey::new(key, 1), peer: DevicePeer::new(public), index: 0 };
    let (mut one, mut other) = (side(one, publics[1]), side(other, publics[0]));
    one.create_state();
    other.create_state();
    (one, other)
}

/// An IPv4 packet with a valid length, which boringtun requires.
fn packet(byte: u8) -> Vec<u8> {
    let mut packet = vec![byte; 40];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&[0, 40]);
    packet
}

/// Establishes a session by sending a packet.
fn handshake(one: &mut Side, other: &mut Side) {
    let initiation = one.encrypt(&packet(1)).unwrap();
    assert_eq!(get_u32_le(&initiation, 0), Some(INITIATION));
    finish_handshake(one, other, &initiation);
}

fn finish_handshake(one: &mut Side, other: &mut Side, initiation: &[u8]) {
    let (outcome, response) = other.receive(initiation);
    assert!(matches!(outcome, MessageOutcome::Reply(92)), "{outcome:?}");
    assert!(other.peer.status(vec![]).last_handshake.is_none_or(|time| time < SystemTime::now()));
    let (outcome, keepalive) = one.receive(&response);
    assert!(matches!(outcome, MessageOutcome::Reply(32)), "{outcome:?}");
    assert_eq!(other.receive(&keepalive).0, MessageOutcome::Accepted);
}

#[track_caller]
fn assert_packets_pass(one: &mut Side, other: &mut Side) {
    for (from, to) in [(0, 1), (1, 0)] {
        let sides = [&mut *one, &mut *other];
        let message = sides[from].encrypt(&packet(7)).unwrap();
        assert_eq!(get_u32_le(&message, 0), Some(DATA));
        assert_eq!(sides[to].receive(&message), (MessageOutcome::Packet(40), packet(7)));
    }
}

#[test]
fn a_packet_is_queued_for_the_session_and_the_handshake_time_is_recorded() {
    let (mut one, mut other) = sides();
    let before = SystemTime::now();
    handshake(&mut one, &mut other);
    let mut buffer = vec![0; 70_000];
    let length = one.peer.next_queued(&mut buffer).unwrap();
    assert_eq!(other.receive(&buffer[..length]), (MessageOutcome::Packet(40), packet(1)));
    assert_eq!(one.peer.next_queued(&mut buffer), None);
    assert_packets_pass(&mut one, &mut other);
    for side in [&one, &other] {
        let time = side.peer.status(vec![]).last_handshake.unwrap();
        assert!(time >= before && time <= SystemTime::now());
    }
}

#[test]
fn replayed_and_changed_messages_are_rejected() {
    let (mut one, mut other) = sides();
    handshake(&mut one, &mut other);
    let message = one.encrypt(&packet(3)).unwrap();
    assert_eq!(other.receive(&message).0, MessageOutcome::Packet(40));
    assert_eq!(other.receive(&message).0, MessageOutcome::Rejected);
    let mut changed = one.encrypt(&packet(3)).unwrap();
    changed[20] ^= 1;
    assert_eq!(other.receive(&changed).0, MessageOutcome::Rejected);
    // A counter beyond the limit, which would overflow in boringtun.
    changed[8..16].fill(0xff);
    assert_eq!(other.receive(&changed).0, MessageOutcome::Rejected);
}

#[test]
fn a_changed_preshared_key_loses_no_packets() {
    let (mut one, mut other) = sides();
    handshake(&mut one, &mut other);
    let psk = WgPresharedKey::from_hex(&"7".repeat(64)).unwrap();
    one.peer.set_preshared(psk.clone());
    assert!(one.peer.needs_state(&one.local_key));
    one.create_state();
    // While the other side has the old key, handshakes fail and packets pass through the previous session.
    assert_packets_pass(&mut one, &mut other);
    let mut buffer = vec![0; 70_000];
    let length = one.peer.initiate(&mut buffer).unwrap();
    let (_, response) = other.receive(&buffer[..length]);
    assert_eq!(one.receive(&response).0, MessageOutcome::Rejected);
    assert_packets_pass(&mut one, &mut other);
    other.peer.set_preshared(psk);
    other.create_state();
    assert_packets_pass(&mut one, &mut other);
    let length = other.peer.initiate(&mut buffer).unwrap();
    let in_flight = one.encrypt(&packet(9)).unwrap();
    finish_handshake(&mut other, &mut one, &buffer[..length]);
    assert_packets_pass(&mut one, &mut other);
    // A message of the previous session is accepted, until the previous state expires.
    assert_eq!(other.receive(&in_flight), (MessageOutcome::Packet(40), packet(9)));
    assert!(other.peer.expire_previous(Instant::now()).is_none());
    assert!(other.peer.expire_previous(Instant::now() + PREVIOUS_GRACE).is_some());
    assert_packets_pass(&mut one, &mut other);
}

#[test]
fn keepalives_follow_the_interval_and_require_no_new_state() {
    let (mut one, mut other) = sides();
    let mut buffer = vec![0; 70_000];
    let now = Instant::now();
    assert_eq!(one.peer.run_timers(&mut buffer, now), None);
    one.peer.endpoint = Some(([127, 0, 0, 1], 1).into());
    one.peer.set_keepalive(25);
    assert!(!one.peer.needs_state(&one.local_key));
    let length = one.peer.run_timers(&mut buffer, now).unwrap();
    finish_handshake(&mut one, &mut other, &buffer[..length]);
    let now = Instant::now();
    assert_eq!(one.peer.run_timers(&mut buffer, now + Duration::from_secs(24)), None);
    let length = one.peer.run_timers(&mut buffer, now + Duration::from_secs(26)).unwrap();
    assert_eq!(other.receive(&buffer[..length]).0, MessageOutcome::Accepted);
    one.peer.set_keepalive(0);
    assert_eq!(one.peer.run_timers(&mut buffer, now + Duration::from_secs(99)), None);
}

#[test]
fn a_buffer_that_is_too_short_is_rejected() {
    let (mut one, mut other) = sides();
    handshake(&mut one, &mut other);
    let message = one.encrypt(&packet(3)).unwrap();
    assert_eq!(other.peer.receive(FROM, &message, &mut [0; 71], times()), MessageOutcome::Rejected);
    assert_eq!(one.peer.encrypt(&packet(3), &mut [0; 71]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Messages of all types with random content, and valid ones with bytes changed.
    #[test]
    fn no_message_causes_a_panic(
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
        other.receive(&garbage);
        let mut initiation = one.encrypt(&packet(1)).unwrap();
        let (_, response) = other.receive(&initiation);
        for (at, byte) in &changes {
            let at = at.index(initiation.len());
            initiation[at] = *byte;
            other.receive(&initiation);
            let mut response = response.clone();
            let at = at % response.len();
            response[at] = *byte;
            one.receive(&response);
        }
        one.receive(&response);
        let mut message = one.encrypt(&bytes).unwrap_or_default();
        other.receive(&message);
        for (at, byte) in &changes {
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = *byte;
                other.receive(&message);
            }
        }
        other.receive(&garbage);
    }
}

#[test]
fn an_initiation_that_states_an_earlier_time_is_reported_unless_it_may_be_a_copy() {
    let (mut one, mut other) = sides();
    let earlier = one.encrypt(&packet(1)).unwrap();
    one.create_state();
    let initiation = one.encrypt(&packet(1)).unwrap();
    finish_handshake(&mut one, &mut other, &initiation);
    assert_eq!(other.receive(&earlier).0, MessageOutcome::Rejected);
    let mut buffer = vec![0; 70_000];
    let later = (Instant::now() + COPY_WITHIN, SystemTime::now());
    assert_eq!(other.peer.receive(FROM, &earlier, &mut buffer, later), MessageOutcome::Old);
    assert!(other.peer.status(Vec::new()).has_old_clock);
    // Its own initiation is answered, and one only is sent.
    let length = other.peer.initiate(&mut buffer).unwrap();
    assert_eq!(other.peer.initiate(&mut vec![0; 70_000]), None);
    finish_handshake(&mut other, &mut one, &buffer[..length]);
    assert!(!other.peer.status(Vec::new()).has_old_clock);
}

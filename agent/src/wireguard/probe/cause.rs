//! The texts of faults: why no full-size packets pass to a node and back, as far as this node can tell. Pure. A text
//! becomes part of outcomes, so that it has no figures that change all the time.

use std::net::{SocketAddr, SocketAddrV4};

use super::PeerState;

/// The headers that WireGuard over IPv4 adds to a packet, in bytes: IPv4 20, UDP 8, WireGuard 32.
const OVERHEAD: u16 = 60;

/// Nothing was proven yet.
pub(in crate::wireguard) const UNPROVEN: &str = "no packet has passed through the tunnel yet";

/// What is known about a node that no packet passes to and back.
#[derive(Clone, Debug)]
pub(super) struct Silence<'a> {
    /// The endpoint that the cluster has decided on.
    pub(super) endpoint: SocketAddrV4,
    /// The UDP port of this node.
    pub(super) port: u16,
    pub(super) state: Option<PeerState>,
    /// Packets from the node arrive.
    pub(super) is_heard: bool,
    /// The error of the last probe that could not be sent.
    pub(super) send_error: Option<&'a str>,
    /// Why the kernel cannot send to the endpoint.
    pub(super) route_error: Option<String>,
}

pub(super) fn silence(known: &Silence<'_>) -> String {
    let Silence { endpoint, port, state, is_heard, send_error, route_error } = known;
    if let Some(error) = send_error {
        return format!("cannot send packets to it: {error}");
    }
    if let Some(error) = route_error {
        return format!("cannot send to its endpoint {endpoint}: {error}");
    }
    let at = location(*endpoint, *state);
    if state.is_some_and(|state| state.has_old_clock) {
        return format!(
            "its handshakes state an earlier time than one before, because its clock was ahead once, and it does not \
            answer those of this node: a firewall drops UDP port {port} of this node or {} of {at}",
            endpoint.port()
        );
    }
    if *is_heard {
        return format!(
            "its packets arrive, but it does not answer: a firewall on that node or before it drops UDP to {at}, or \
            ICMP echo requests from its mesh device"
        );
    }
    if state.is_some_and(|state| state.is_established) {
        return format!(
            "nothing arrives from {at} any more: a firewall of either node or between them drops UDP port {port} of \
            this node or {} of that one, or it is down",
            endpoint.port()
        );
    }
    format!(
        "no handshake with {at}: a firewall of either node or between them drops UDP port {port} of this node or {} of \
        that one, it is down, or a clock was set back (handshakes older than the last one are ignored)",
        endpoint.port()
    )
}

/// What is known about a node that small packets pass to and back, but full-size ones do not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrowness {
    pub(super) endpoint: SocketAddrV4,
    pub(super) state: Option<PeerState>,
    /// The largest packet that passes through the tunnel, in bytes.
    pub(super) largest: Option<u16>,
    /// The size of full-size packets in the tunnel, in bytes.
    pub(super) full_size: u16,
    /// The MTU of this node's link to the endpoint: a device may receive some bytes more, but not send them.
    pub(super) link_mtu: Option<u16>,
}

/// As [`narrow`], before the largest packet that passes is known.
pub(super) fn unmeasured(endpoint: SocketAddrV4, state: Option<PeerState>, full_size: u16) -> String {
    let (at, needed) = (location(endpoint, state), full_size.saturating_add(OVERHEAD));
    format!("small packets pass to {at}, but not those of {needed} bytes: the path MTU is being measured")
}

pub(super) fn narrow(known: &Narrowness) -> String {
    let Narrowness { endpoint, state, largest, full_size, link_mtu } = *known;
    let at = location(endpoint, state);
    let needed = full_size.saturating_add(OVERHEAD);
    let measured = match largest.map(|largest| largest.saturating_add(OVERHEAD)) {
        Some(path) => format!("the path MTU to {at} is {} bytes", link_mtu.map_or(path, |link| link.min(path))),
        None => format!("the path MTU to {at} is less than {} bytes", super::peer::MEASURED_MIN + OVERHEAD),
    };
    format!(
        "{measured}, but full-size packets of the mesh need {needed}: increase the MTU of the links between the nodes, \
        or allow ICMP `fragmentation needed` there"
    )
}

/// The two nodes use different UDP ports for VXLAN.
pub(super) fn vxlan_ports(own: u16, other: u16) -> String {
    format!(
        "it uses UDP port {other} for VXLAN, and this node {own}: start the agents of all nodes with the same \
        `--vxlan-port`"
    )
}

/// The decided endpoint, and where its packets come from, if that differs.
fn location(endpoint: SocketAddrV4, state: Option<PeerState>) -> String {
    match state.and_then(|state| state.endpoint) {
        Some(seen) if seen != SocketAddr::V4(endpoint) => format!("{endpoint} (behind NAT: last seen at {seen})"),
        Some(_) | None => endpoint.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(state: Option<PeerState>) -> Silence<'static> {
        let endpoint = "192.0.2.2:51820".parse().unwrap();
        Silence { endpoint, port: 51821, state, is_heard: false, send_error: None, route_error: None }
    }

    #[test]
    fn texts_name_endpoint_port_and_cause() {
        let state = |is_established, seen: &str| PeerState {
            endpoint: seen.parse().ok(),
            is_established,
            has_old_clock: false,
            rx_bytes: 0,
            tx_bytes: 0,
        };
        let text = silence(&known(None));
        assert!(text.starts_with("no handshake with 192.0.2.2:51820: a firewall"), "{text}");
        assert!(text.contains("port 51821 of this node or 51820 of that one") && text.contains("clock"), "{text}");
        let text = silence(&known(Some(state(true, "192.0.2.2:51820"))));
        assert!(text.starts_with("nothing arrives from 192.0.2.2:51820 any more"), "{text}");
        let text = silence(&Silence { is_heard: true, ..known(Some(state(true, "198.51.100.1:4000"))) });
        assert!(text.contains("192.0.2.2:51820 (behind NAT: last seen at 198.51.100.1:4000)"), "{text}");
        let text = silence(&Silence { route_error: Some("Network is unreachable".into()), ..known(None) });
        assert_eq!(text, "cannot send to its endpoint 192.0.2.2:51820: Network is unreachable");
        let endpoint = "192.0.2.2:51820".parse().unwrap();
        let known = Narrowness { endpoint, state: None, largest: Some(1344), full_size: 1440, link_mtu: Some(1400) };
        let text = narrow(&known);
        assert!(text.starts_with("the path MTU to 192.0.2.2:51820 is 1400 bytes, but"), "{text}");
        assert!(text.contains("need 1500:"), "{text}");
    }
}

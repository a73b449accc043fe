"""Breaks of a node's network, each with its repair. All are made with the system's own tools.

A break that the agent repairs by itself has no repair of its own."""
import dataclasses

import clocks

GATEWAY = "10.99.0.2"  # the nodes' gateway in the lab
OUTSIDE = "203.0.113.1"
NAT_SUBNET = "10.20.0.0/24"
NATS = "10.99.0.1"  # the control plane, at port 4222
DAY_S = 86_400
TABLE = "breaks"  # name of the nftables table of a break


@dataclasses.dataclass(frozen=True)
class Break:
    kind: str
    node: str
    apply: str  # shell commands, in the node's namespace
    repair: str = ""
    is_partial: bool = False  # it concerns only some destinations outside, so that a warning is what is due
    is_cut_off: bool = False  # the node does not reach the control plane, which must find it unreachable

    def __str__(self):
        return f"{self.kind} on {self.node}"


def chain(family, hook, priority, *rules, policy="accept", kind="filter", device=""):
    """A table of another program with one base chain."""
    begin = f"type {kind} hook {hook} {device} priority {priority}; policy {policy};"
    lines = [f"add table {family} {TABLE}", f"add chain {family} {TABLE} c {{ {begin} }}"]
    lines += [f"add rule {family} {TABLE} c {rule}" for rule in rules]
    text = "\n".join(lines)
    return f"nft -f - <<'END'\n{text}\nEND", f"nft delete table {family} {TABLE}"


def filters(node):
    """Rulesets of other programs, at every hook that packets of guests or of the mesh pass."""
    nat, uplink = node.bridge("nat"), "eth0"
    yield "forward policy drop, inet", chain("inet", "forward", 0, policy="drop")
    yield "forward policy drop, ip", chain("ip", "forward", 0, policy="drop")
    yield "forward policy drop with established accepted", chain(
        "inet", "forward", 0, "ct state established,related accept", policy="drop")
    yield "forward ends with reject", chain("inet", "forward", 10, "ct state established,related accept",
                                            "iifname lo accept", "reject with icmpx admin-prohibited")
    yield "forward policy drop, guests accepted", chain(
        "inet", "forward", 0, "ct state established accept", f"iifname {nat} accept", policy="drop")
    yield "prerouting drops guests", chain("inet", "prerouting", -300, f"iifname {nat} drop")
    yield "prerouting drops a subnet", chain("ip", "prerouting", -150, f"ip saddr {NAT_SUBNET} drop")
    yield "postrouting drops guests", chain("inet", "postrouting", -10, f"oifname {uplink} ip saddr {NAT_SUBNET} drop")
    yield "postrouting drops answers", chain("ip", "postrouting", 50, f"oifname {nat} drop")
    yield "bridge forward policy drop", chain("bridge", "forward", 0, policy="drop")
    yield "bridge forward policy drop, IP and ARP accepted", chain(
        "bridge", "forward", 0, "ether type { ip, arp } accept", policy="drop")
    yield "bridge prerouting drops IP", chain(
        "bridge", "prerouting", -300, f'iifname "{node.taps[0]}" ether type ip drop')
    for verdict in ["drop", "reject"]:
        yield f"input {verdict}s the mesh", chain("inet", "input", 0, f"udp dport 51820 {verdict}")
        yield f"input {verdict}s VXLAN", chain("inet", "input", 0, f"iifname otwg0 udp dport 4789 {verdict}")
    yield "output drops the mesh", chain("inet", "output", 0, "udp sport 51820 drop")
    yield "output drops VXLAN", chain("inet", "output", 0, "oifname otwg0 udp dport 4789 drop")
    yield "output drops large packets of the mesh", chain("ip", "output", 0, "udp sport 51820 ip length > 1450 drop")
    yield "input drops large packets of the mesh", chain("ip", "input", 0, "udp dport 51820 ip length > 1450 drop")
    yield "input policy drop, mesh accepted", chain(
        "inet", "input", 0, "ct state established,related accept", "iif lo accept", "udp dport { 51820, 4789 } accept",
        "meta l4proto icmp accept", policy="drop")


def settings(node):
    """Devices, addresses, routes and switches that the agent repairs by itself."""
    nat, plain, span = (node.bridge(name) for name in ["nat", "plain", "span"])
    tap, vtep = node.taps[0], node.vtep
    yield "address of the gateway flushed", f"ip address flush dev {nat}"
    yield "routes of the bridge flushed", f"ip route flush dev {nat}"
    yield "connected route deleted", f"ip route del {NAT_SUBNET} dev {nat}"
    yield "forwarding off", "sysctl -qw net.ipv4.ip_forward=0"
    yield "forwarding off at the uplink", "sysctl -qw net.ipv4.conf.eth0.forwarding=0"
    yield "forwarding off at the bridge", f"sysctl -qw net.ipv4.conf.{nat}.forwarding=0"
    yield "ruleset flushed", "nft flush ruleset"
    yield "own table deleted", "nft delete table ip otherix"
    for bridge in [nat, plain, span]:
        yield f"{bridge} down", f"ip link set {bridge} down"
        yield f"MTU of {bridge}", f"ip link set {bridge} mtu 1000"
        yield f"{bridge} deleted", f"ip link del {bridge}"
    yield "STP on", f"ip link set {nat} type bridge stp_state 1"
    for index, device in enumerate(node.taps):
        yield f"tap {index} down", f"ip link set {device} down"
        yield f"tap {index} on no bridge", f"ip link set {device} nomaster"
    yield "tap on another bridge", f"ip link set {tap} master {plain if node.taps_on(nat) else nat}"
    yield "MTU of a tap", f"ip link set {tap} mtu 600"
    yield "tap isolated", f"bridge link set dev {tap} isolated on"
    yield "tap does not flood", f"bridge link set dev {tap} flood off mcast_flood off bcast_flood off"
    yield "tap does not learn", f"bridge link set dev {tap} learning off"
    yield "state of a tap's port", f"bridge link set dev {tap} state 0"
    yield "VTEP down", f"ip link set {vtep} down"
    yield "VTEP deleted", f"ip link del {vtep}"
    yield "VTEP on no bridge", f"ip link set {vtep} nomaster"
    yield "state of the VTEP's port", f"bridge link set dev {vtep} state 0"
    yield "forwarding entries deleted", f"bridge fdb show dev {vtep} | grep self | while read a rest; do " \
        f'set -- $rest; bridge fdb del $a dev {vtep} dst $2 self; done'
    yield "mesh device down", "ip link set otwg0 down"
    yield "MTU of the mesh device", "ip link set otwg0 mtu 1300"
    yield "mesh device deleted", "ip link del otwg0"
    yield "mesh address deleted", "ip address flush dev otwg0"
    yield "mesh peers removed", "for peer in $(wg show otwg0 peers); do wg set otwg0 peer $peer remove; done"
    yield "mesh port changed", "wg set otwg0 listen-port 51999"


def routes(node):
    """Routes and rules of the operator, or of another program. What they lead to may be a way or none."""
    peer, mesh_peer = node.peer_endpoint, node.peer_mesh_address
    default = f"default via {GATEWAY} dev eth0"
    yield "no default route", f"ip route del {default}", f"ip route replace {default}"
    yield "default route by a rule's table", \
        f"ip route add table 77 {default} && ip rule add from {NAT_SUBNET} lookup 77 priority 90", \
        "ip rule del priority 90; ip route flush table 77"
    yield "halves instead of a default route", \
        f"for half in 0.0.0.0/1 128.0.0.0/1; do ip route add $half via {GATEWAY}; done; ip route del {default}", \
        f"ip route replace {default}; for half in 0.0.0.0/1 128.0.0.0/1; do ip route del $half; done"
    for kind in ["blackhole", "unreachable", "prohibit"]:
        yield f"{kind} default route", f"ip route del {default}; ip route add {kind} default", \
            f"ip route del {kind} default; ip route replace {default}"
        yield f"{kind} rule for guests", f"ip rule add from {NAT_SUBNET} priority 91 {kind}", \
            "ip rule del priority 91"
        yield f"{kind} rule at the bridge", f"ip rule add iif {node.bridge('nat')} priority 92 {kind}", \
            "ip rule del priority 92"
        yield f"{kind} route to a peer", f"ip route add {kind} {peer}/32", f"ip route del {kind} {peer}/32"
        yield f"{kind} route to a peer in the mesh", f"ip route prepend {kind} {mesh_peer}/32", \
            f"ip route del {kind} {mesh_peer}/32"
    yield "route to a peer in the mesh by another link", \
        "ip link add other type veth peer name other-end && ip link set other-end up && ip link set other up && " \
        f"ip route prepend {mesh_peer}/32 dev other", \
        "ip link del other"
    yield "narrow uplink", "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500"
    yield "narrow route to a peer", f"ip route add {peer}/32 dev eth0 mtu lock 1300", f"ip route del {peer}/32"


def wall_clocks(node):
    """Jumps of the node's wall clock, each followed by new handshakes in the mesh, which state the time."""
    shake_hands = "for peer in $(wg show otwg0 peers); do wg set otwg0 peer $peer remove; done"
    for name, seconds in [("a day ahead", DAY_S), ("a day behind", -DAY_S), ("a minute ahead", 60)]:
        yield f"clock {name}", f"{clocks.shifted(seconds)}; {shake_hands}", f"{clocks.shifted(0)}; {shake_hands}"
        yield f"clock {name} while handshakes are recent", clocks.shifted(seconds), clocks.shifted(0)
    forth, back = clocks.shifted(DAY_S), clocks.shifted(0)
    yield "clock was a day ahead", f"{forth}; {shake_hands}; sleep 1; {back}; {shake_hands}", ""


def cut_off(node):
    """The node does not reach the control plane; its guests may reach each other and the outside."""
    yield "uplink down", "ip link set eth0 down", \
        f"ip link set eth0 up; ip route replace default via {GATEWAY} dev eth0"
    yield "blackhole route to the control plane", \
        f"ip route add blackhole {NATS}/32", f"ip route del blackhole {NATS}/32"
    yield "output drops the control plane", *chain("inet", "output", 0, f"ip daddr {NATS} tcp dport 4222 drop")
    yield "output rejects the control plane", *chain(
        "inet", "output", 0, f"ip daddr {NATS} tcp dport 4222 reject with tcp reset")
    yield "input drops the control plane", *chain("inet", "input", 0, f"ip saddr {NATS} tcp sport 4222 drop")


def partial(node):
    """Routes and rules that keep guests from some destinations."""
    for kind in ["blackhole", "prohibit"]:
        yield f"{kind} rule to some destinations", \
            f"ip rule add iif {node.bridge('nat')} to 203.0.113.0/24 priority 93 {kind}", "ip rule del priority 93"


def breaks(node):
    """Every break of a node."""
    for kind, apply, repair in partial(node):
        yield Break(kind, node.name, apply, repair, is_partial=True)
    for kind, (apply, repair) in filters(node):
        yield Break(kind, node.name, apply, repair)
    for kind, apply in settings(node):
        yield Break(kind, node.name, apply)
    for kind, apply, repair in [*routes(node), *wall_clocks(node)]:
        yield Break(kind, node.name, apply, repair)
    for kind, apply, repair in cut_off(node):
        yield Break(kind, node.name, apply, repair, is_cut_off=True)

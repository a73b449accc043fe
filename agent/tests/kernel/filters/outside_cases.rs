//! Cases of `outside`: rules of other programs, and whether packets of guests pass them.

use super::{Case, NOTHING, free, lost};

/// Rules with which packets of guests, or answers to them, are lost.
pub(super) const LOST: &[Case] = &[
    lost(
        "table inet t { chain c { type filter hook forward priority 0; policy drop; } }",
        NOTHING,
        "`inet t c` drops packets from guests",
    ),
    lost(
        "table ip t { chain c { type filter hook forward priority 0; policy drop; } }",
        NOTHING,
        "`nft insert rule ip t c iifname br-1 accept`, `nft insert rule ip t c oifname br-1 ct state \
            established,related accept`",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; policy accept; reject; } }",
        NOTHING,
        "`inet t c` rejects packets from guests",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 5; ct state established,related accept; \
        iifname lo accept; jump other; } chain other { reject with icmpx type admin-prohibited; } }",
        NOTHING,
        "(in `other`) rejects",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 5; iifname \"br-*\" goto other; } \
        chain other { counter; } chain d { type filter hook forward priority 6; policy drop; iifname uplink \
        accept; } }",
        NOTHING,
        "`inet t d` drops",
    ),
    lost(
        "table inet t { chain c { type filter hook prerouting priority 0; iifname br-1 drop; } }",
        NOTHING,
        "`inet t c` drops",
    ),
    lost(
        "table ip t { chain c { type filter hook prerouting priority -300; ip saddr 10.20.0.0/16 drop; } }",
        NOTHING,
        "`ip t c` drops",
    ),
    lost(
        "table ip t { chain c { type filter hook postrouting priority 0; policy drop; oifname lo accept; } }",
        NOTHING,
        "`ip t c` drops",
    ),
    lost(
        "table ip t { chain c { type nat hook postrouting priority 90; ip saddr 10.20.1.0/24 drop; } }",
        NOTHING,
        "`ip t c` drops",
    ),
    lost(
        "table ip t { chain c { type filter hook postrouting priority 200; policy drop; ip saddr 10.20.0.0/16 \
            accept; } }",
        NOTHING,
        "`ip t c` drops",
    ),
    lost(
        "table ip t { chain c { type filter hook prerouting priority -300; iifname br-1 notrack; } }",
        NOTHING,
        "exempts from connection tracking",
    ),
    lost(
        "table ip t { chain c { type filter hook prerouting priority -300; iifname uplink notrack; } }",
        NOTHING,
        "exempts from connection tracking",
    ),
    lost(
        "table netdev t { chain c { type filter hook ingress device uplink priority 0; ip saddr 203.0.113.1 \
            accept; ip protocol { icmp, tcp, udp } drop; } \
        chain d { type filter hook ingress device br-1 priority 0; policy drop; ether type arp accept; } }",
        NOTHING,
        "`netdev t d` drops",
    ),
    lost(
        "table inet t { chain c { type filter hook ingress device br-1 priority 0; ip daddr != 10.0.0.0/8 drop; } }",
        NOTHING,
        "`inet t c` drops",
    ),
    lost(
        "table bridge t { chain c { type filter hook prerouting priority 0; ether type ip drop; } }",
        NOTHING,
        "`bridge t c` drops",
    ),
    lost(
        "table bridge t { chain c { type filter hook input priority 0; policy drop; ether type arp accept; } }",
        NOTHING,
        "`bridge t c` drops",
    ),
    lost(
        "table bridge t { chain c { type filter hook output priority 0; ether type ip drop; } }",
        NOTHING,
        "`bridge t c` drops",
    ),
    lost(
        "table bridge t { chain c { type filter hook postrouting priority 0; oifname \"g1-*\" ip protocol != 47 \
            drop; } }",
        NOTHING,
        "`bridge t c` drops",
    ),
    // Only answers.
    lost(
        "table inet t { chain c { type filter hook forward priority 0; oifname br-1 drop; } }",
        NOTHING,
        "answers to guests",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; policy drop; iifname br-1 accept; } }",
        NOTHING,
        "`nft insert rule inet t c oifname br-1 ct state established,related accept`",
    ),
    lost(
        "table inet t { chain c { type filter hook prerouting priority -150; iifname uplink ct state \
            established drop; } }",
        NOTHING,
        "answers to guests",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; ct direction reply drop; } }",
        NOTHING,
        "answers to guests",
    ),
    // Not the first packet.
    lost(
        "table inet t { chain c { type filter hook forward priority 0; iifname br-1 ct state established drop; } }",
        [true, false, true],
        "drops",
    ),
    // Some protocols.
    lost(
        "table inet t { chain c { type filter hook forward priority 0; meta l4proto tcp reject with tcp reset; } }",
        [true, false, true],
        "rejects TCP from guests",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; icmp type echo-request drop; } }",
        [false, true, true],
        "drops ICMP echo from guests",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; icmp type echo-reply drop; } }",
        [false, true, true],
        "answers to guests from the outside (ICMP echo)",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; udp dport >= 1 drop; } }",
        [true, true, false],
        "drops UDP from guests",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; tcp flags & (fin | syn | rst | ack) == \
            syn drop; } }",
        [true, false, true],
        "drops TCP",
    ),
    // Conditions that packets of guests meet.
    lost(
        "table inet t { chain c { type filter hook forward priority 0; iifname != { lo, eth7 } oifname { \
            uplink, wan0 } drop; } }",
        NOTHING,
        "`inet t c` drops",
    ),
    lost(
        "table inet t { set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.0.0/16 } } \
        chain c { type filter hook forward priority 0; ip saddr @s ip daddr != @s drop; } }",
        NOTHING,
        "`inet t c` drops",
    ),
    lost(
        "table inet t { set s { type ifname . ipv4_addr; flags interval; elements = { br-1 . \
            10.20.1.0-10.20.1.99, br-1 . 10.20.1.100-10.20.1.255 } } \
        chain c { type filter hook forward priority 0; iifname . ip saddr @s drop; } }",
        NOTHING,
        "`inet t c` drops",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; iifname vmap { lo : accept, br-1 : goto \
            d }; } chain d { drop; } }",
        NOTHING,
        "(in `d`) drops",
    ),
    lost(
        "table inet t { map m { type ipv4_addr : mark; flags interval; elements = { 10.20.0.0/16 : 7 } } \
        chain c { type filter hook prerouting priority -150; meta mark set ip saddr map @m; } \
        chain d { type filter hook forward priority 0; meta mark 7 drop; } }",
        NOTHING,
        "`inet t d` drops",
    ),
    lost(
        "table inet t { chain c { type filter hook prerouting priority -150; iifname br-1 ct mark set 0x10; } \
        chain d { type filter hook forward priority 0; oifname br-1 ct mark & 0xf0 == 0x10 drop; } }",
        NOTHING,
        "answers to guests",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; fib saddr . iif oif != 0 oifname uplink \
            drop; } }",
        NOTHING,
        "`inet t c` drops",
    ),
    lost(
        "table inet t { chain c { type filter hook prerouting priority 0; fib daddr type unicast iif br-1 drop; } }",
        NOTHING,
        "`inet t c` drops",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; limit rate 1000/second drop; } }",
        NOTHING,
        "`inet t c` drops",
    ),
    lost(
        "table inet t { chain c { type filter hook forward priority 0; ct status snat ct state established ip \
            daddr 10.20.1.0/24 drop; } }",
        NOTHING,
        "answers to guests",
    ),
];

/// Rules with which they pass.
pub(super) const FREE: &[Case] = &[
    free(
        "table inet t { chain c { type filter hook forward priority 0; policy drop; iifname br-1 accept; \
        oifname br-1 ct state established,related accept; } }",
    ),
    free(
        "table inet t { chain c { type filter hook forward priority 0; ct state vmap { established : accept, \
            related : accept, invalid : drop }; \
        iifname \"br-*\" oifname uplink accept; reject with icmpx type admin-prohibited; } }",
    ),
    free(
        "table ip t { chain c { type filter hook forward priority 0; policy drop; ip saddr 10.20.1.0/24 accept; \
            ip daddr 10.20.1.0/24 accept; } }",
    ),
    free(
        "table inet t { set s { type ifname; elements = { br-1, br-7 } } chain c { type filter hook forward \
            priority 0; policy drop; \
        iifname @s accept; oifname @s accept; } }",
    ),
    free(
        "table inet t { chain m { type filter hook prerouting priority -150; ct mark != 0 meta mark set ct \
            mark; iifname br-1 meta mark set 0x8; \
        ct mark set meta mark; } \
        chain c { type filter hook forward priority 0; policy drop; meta mark & 0xff == 0x8 accept; } }",
    ),
    free(
        "table inet t { chain c { type filter hook forward priority 0; jump other; reject; } \
        chain other { iifname lo drop; iifname br-1 accept; ct state established accept; } }",
    ),
    free(
        "table inet t { chain c { type filter hook forward priority 0; ip daddr 198.18.0.1 drop; tcp dport { \
            25, 465 } reject; \
        ip saddr { 10.66.0.0/16, 10.20.2.0/24 } drop; meta nfproto ipv6 drop; \
        iifname br-1 ip daddr { 10.0.0.0/8, 172.16.0.0/12 } drop; \
        ct state invalid drop; iifname docker0 drop; meta skuid 0 drop; } }",
    ),
    free(
        "table inet t { chain c { type filter hook forward priority 0; limit rate over 1000/second burst 1000 \
            packets drop; ct count over 1000 drop; \
        ip frag-off & 0x1fff != 0 drop; tcp flags & (fin | syn) == (fin | syn) drop; \
        fib saddr . iif oif missing drop; fib daddr type { broadcast, multicast } drop; } }",
    ),
    free(
        "table inet t { set flood { type ipv4_addr; flags dynamic; timeout 10s; } chain c { type filter hook \
            forward priority 0; \
        update @flood { ip saddr limit rate over 1000/second burst 1000 packets } drop; } }",
    ),
    free("table ip6 t { chain c { type filter hook forward priority 0; policy drop; } }"),
    free("table inet t { flags dormant; chain c { type filter hook forward priority 0; policy drop; } }"),
    free(
        "table inet t { chain c { type filter hook input priority 0; policy drop; iifname br-1 accept; } \
        chain d { type filter hook output priority 0; policy drop; oifname br-1 accept; } }",
    ),
    free(
        "table inet t { chain unused { drop; } chain c { type filter hook forward priority 0; policy accept; \
            return; drop; } }",
    ),
    free(
        "table netdev t { chain c { type filter hook ingress device uplink priority 0; ip saddr { \
            198.18.0.0/15, 240.0.0.0/4 } drop; } \
        chain d { type filter hook ingress device lo priority 0; policy drop; } }",
    ),
    free(
        "table bridge t { chain c { type filter hook forward priority 0; policy drop; iifname \"g1-*\" accept; \
            iifname \"ot*\" accept; } \
        chain d { type filter hook prerouting priority 0; vlan id 7 drop; ether type vlan drop; ip saddr \
        169.254.0.0/16 drop; } }",
    ),
    free(
        "table ip t { chain c { type nat hook prerouting priority -110; iifname eth7 drop; tcp dport 8 redirect; } \
        chain d { type filter hook postrouting priority 200; policy drop; ip saddr 192.0.2.7 accept; ip daddr \
        10.20.1.0/24 accept; } }",
    ),
    free(
        "table arp t { chain c { type filter hook input priority 0; policy drop; iifname { br-1, uplink } \
            accept; } }",
    ),
];

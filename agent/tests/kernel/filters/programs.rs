//! Rules as firewalld, ufw, Docker and iptables make them.

use otherix_testkit::netns::sh;

use super::outside::{World, world};
use super::{ALL, NOTHING, Passes, expect_pending, expect_ready};

/// Removes all tables of other programs.
const UNDO: &str = "nft -j list tables | jq -r \".nftables[].table | select(. != null and (.name | \
startswith(\\\"otherix\\\") | not)) \
    | .family + \\\" \\\" + .name\" | while read -r table; do nft delete table $table; done";

/// Default rules of firewalld, with the uplink in zone `public`.
const FIREWALLD: &str = "
table inet firewalld {
    chain filter_PREROUTING {
        type filter hook prerouting priority filter + 10; policy accept;
        icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname \"lo\" accept
        ct state invalid drop
        jump filter_INPUT_POLICIES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname \"lo\" accept
        ct state invalid drop
        ip6 daddr { ::/96, 2002::/24 } reject with icmpv6 addr-unreachable
        jump filter_FORWARD_POLICIES
        reject with icmpx admin-prohibited
    }
    chain filter_INPUT_POLICIES { ICMP jump filter_IN_public; }
    chain filter_IN_public {
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 22 accept
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_POLICIES {
        ZONES
        iifname \"uplink\" jump filter_FWD_public
        jump filter_FWD_public
    }
    chain filter_FWD_public {
        jump filter_FWD_public_log
        meta l4proto ipv6-icmp accept
        reject with icmpx admin-prohibited
    }
    chain filter_FWD_public_log { }
    chain filter_FWD_trusted { accept; }
}
";

fn firewalld(zones: &str, input: &str) -> String {
    let rules = FIREWALLD.replace("ZONES", zones).replace("ICMP", input);
    super::script(&rules)
}

/// Forwarding rules of ufw after `ufw enable`.
const UFW: &str = "iptables-restore <<'.'
*filter
:INPUT ACCEPT
:FORWARD DROP
:OUTPUT ACCEPT
:ufw-before-logging-forward -
:ufw-before-forward -
:ufw-after-forward -
:ufw-after-logging-forward -
:ufw-reject-forward -
:ufw-track-forward -
:ufw-user-forward -
-A FORWARD -j ufw-before-logging-forward
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-after-forward
-A FORWARD -j ufw-after-logging-forward
-A FORWARD -j ufw-reject-forward
-A FORWARD -j ufw-track-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp --icmp-type destination-unreachable -j ACCEPT
-A ufw-before-forward -p icmp --icmp-type time-exceeded -j ACCEPT
-A ufw-before-forward -p icmp --icmp-type parameter-problem -j ACCEPT
-A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-after-logging-forward -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"
COMMIT
.";

/// Rules of Docker with a container network.
const DOCKER: &str = "iptables-restore <<'.'
*raw
:PREROUTING ACCEPT
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT
:POSTROUTING ACCEPT
:DOCKER -
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT ACCEPT
:FORWARD DROP
:DOCKER -
:DOCKER-ISOLATION-STAGE-1 -
:DOCKER-ISOLATION-STAGE-2 -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
.";

/// Runs rules, checks the reason and real traffic, does what the reason says, and checks again.
async fn try_program(world: &mut World, rules: &str, passes: Passes, reason: &str, help: &str) {
    let World { node, traffic, .. } = world;
    sh(rules);
    let said = expect_pending(node, 1, reason).await;
    assert_eq!(traffic.passes(), passes, "{said}");
    sh(help);
    expect_ready(node, 1).await;
    assert_eq!(traffic.passes(), ALL, "{said}");
    sh(UNDO);
    node.restart();
    node.settle().await;
}

/// The commands in a reason.
fn commands(reason: &str) -> Vec<&str> {
    reason.split('`').filter(|part| part.starts_with("iptables ")).collect()
}

#[tokio::test]
async fn rules_of_firewalld() {
    let mut world = world().await;
    let trusted = "iifname \"br-1\" jump filter_FWD_trusted";
    let help = format!("nft delete table inet firewalld; {}", firewalld(trusted, "counter"));
    let reason = "`inet firewalld filter_FORWARD` (in `filter_FWD_public`) rejects packets from guests to the \
    outside: \
        `firewall-cmd --permanent --zone=trusted --add-interface=br-1 && firewall-cmd --reload`";
    try_program(&mut world, &firewalld("", "counter"), NOTHING, reason, &help).await;
}

#[tokio::test]
async fn rules_of_ufw() {
    let mut world = world().await;
    let help = "iptables -A ufw-user-forward -i br-1 -j ACCEPT";
    let reason = "`ip filter FORWARD` drops TCP and UDP from guests to the outside: `ufw route allow in on br-1`";
    try_program(&mut world, UFW, [true, false, false], reason, help).await;
}

#[tokio::test]
async fn rules_of_docker() {
    let mut world = world().await;
    sh(DOCKER);
    let reason = expect_pending(&mut world.node, 1, "`ip filter FORWARD` drops packets from guests").await;
    let commands = commands(&reason);
    assert_eq!(
        commands,
        [
            "iptables -I DOCKER-USER -i br-1 -j ACCEPT",
            "iptables -I DOCKER-USER -o br-1 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
        ]
    );
    assert_eq!(world.traffic.passes(), NOTHING);
    sh(&commands.join("\n"));
    expect_ready(&mut world.node, 1).await;
    assert_eq!(world.traffic.passes(), ALL);
}

/// Commands of iptables, and what passes with them.
const IPTABLES: &[(&str, Passes)] = &[
    ("iptables -P FORWARD DROP", NOTHING),
    ("iptables -A FORWARD -m comment --comment mine -i br-+ -j DROP", NOTHING),
    ("iptables -A FORWARD -m physdev ! --physdev-is-bridged -i br-1 -j DROP", NOTHING),
    (
        "iptables -A FORWARD -p tcp -m multiport --dports 1:9,10:65535 -j REJECT --reject-with tcp-reset",
        [true, false, true],
    ),
    ("iptables -A FORWARD -p tcp -m tcp --syn -j DROP", [true, false, true]),
    ("iptables -A FORWARD -p udp -m udp ! --dport 53 -j DROP; iptables -A FORWARD -p udp -j DROP", [true, true, false]),
    ("iptables -A FORWARD -p icmp -m icmp --icmp-type any -j DROP", [false, true, true]),
    (
        "iptables -t mangle -A PREROUTING -i br-1 -j MARK --set-mark 0x10/0xff\niptables -A FORWARD -m mark \
            --mark 0x10/0xff -j DROP",
        NOTHING,
    ),
    (
        "iptables -t mangle -A PREROUTING -i br-1 -j MARK --set-mark 5\niptables -t mangle -A POSTROUTING -j \
            CONNMARK --save-mark\n\
      iptables -A FORWARD -o br-1 -m connmark --mark 5 -j DROP",
        NOTHING,
    ),
    ("iptables -A FORWARD -m conntrack --ctstate NEW -j REJECT", NOTHING),
    ("iptables -A FORWARD -m conntrack ! --ctstate INVALID -j DROP", NOTHING),
    ("iptables -A FORWARD -m state --state ESTABLISHED -j DROP", NOTHING),
    ("iptables -t mangle -A POSTROUTING -m addrtype --dst-type UNICAST -o uplink -j DROP", NOTHING),
    ("iptables -t raw -A PREROUTING -i br-1 -j CT --notrack", NOTHING),
    ("iptables -A FORWARD -m limit --limit 1000/s -j DROP", NOTHING),
    (
        "iptables -P FORWARD DROP; iptables -A FORWARD -i br-1 -j ACCEPT; \
      iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ALL,
    ),
    (
        "iptables -P FORWARD DROP; iptables -A FORWARD -s 10.20.1.0/24 -j ACCEPT; iptables -A FORWARD -d \
            10.20.1.0/24 -j ACCEPT; \
      iptables -t raw -A PREROUTING -d 10.9.0.0/16 -j DROP",
        ALL,
    ),
    (
        "iptables -A FORWARD -p tcp -m multiport --dports 25,465 -j DROP; iptables -A FORWARD -m addrtype \
            --dst-type BROADCAST -j DROP; \
      iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP; iptables -A FORWARD -m mark --mark \
      0x8000/0x8000 -j DROP",
        ALL,
    ),
];

#[tokio::test]
async fn rules_of_iptables() {
    let World { mut node, traffic, .. } = world().await;
    for (rules, passes) in IPTABLES {
        sh(rules);
        if *passes == ALL {
            node.restart();
            node.settle().await;
            assert_eq!(node.outcome(1).await, otherix_schemas::outcome::Outcome::Ready, "{rules}");
        } else {
            expect_pending(&mut node, 1, "the chain `ip ").await;
        }
        assert_eq!(traffic.passes(), *passes, "{rules}");
        sh(UNDO);
        if *passes != ALL {
            expect_ready(&mut node, 1).await;
        }
        assert_eq!(traffic.passes(), ALL, "after {rules}");
    }
}

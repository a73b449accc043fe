//! Which field was meant.

/// The known name that is nearest to one that is not known, if one is near: another spelling of the words, a beginning, a
/// slip of the hand.
pub(super) fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    // Names are short; a long one is no slip, and would take long to compare.
    if unknown.len() > 40 {
        return None;
    }
    let plain = |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let meant = plain(unknown);
    let begins = |a: &str, b: &str| a.len() >= 3 && b.starts_with(a);
    let distance = |name: &str| strsim::osa_distance(&meant, &plain(name));
    let spelt = known.iter().find(|name| plain(name) == meant);
    let begun = || known.iter().find(|name| begins(&meant, &plain(name)) || begins(&plain(name), &meant));
    let slipped =
        || known.iter().min_by_key(|name| distance(name)).filter(|name| distance(name) <= (name.len() / 3).max(1));
    spelt.or_else(slipped).or_else(begun).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_was_meant() {
        let known = ["type", "bridgeName", "managed", "egress", "subnet", "gateway", "mtu", "vlan"];
        for (unknown, meant) in [
            ("bridge_name", Some("bridgeName")),
            ("bridgename", Some("bridgeName")),
            ("bridge-name", Some("bridgeName")),
            ("brigdeName", Some("bridgeName")),
            ("bridge", Some("bridgeName")),
            ("MTU", Some("mtu")),
            ("mut", Some("mtu")),
            ("subnets", Some("subnet")),
            ("subnetCIDR", Some("subnet")),
            ("vlanId", Some("vlan")),
            ("manged", Some("managed")),
            ("tpye", Some("type")),
            ("colour", None),
            ("", None),
            ("x", None),
            ("网络", None),
        ] {
            assert_eq!(nearest(unknown, &known), meant, "{unknown}");
        }
    }
}

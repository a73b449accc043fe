//! Suggestions for misspelt fields.

/// The known name most similar to an unknown one, if any: written in another case, with a typing error, or shortened.
pub(super) fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    // Names are short: a long one is not a typing error, and would take long to compare.
    if unknown.len() > 40 {
        return None;
    }
    let plain = |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let intended = plain(unknown);
    let is_prefix = |a: &str, b: &str| a.len() >= 3 && b.starts_with(a);
    let distance = |name: &str| strsim::osa_distance(&intended, &plain(name));
    let same = known.iter().find(|name| plain(name) == intended);
    let shortened =
        || known.iter().find(|name| is_prefix(&intended, &plain(name)) || is_prefix(&plain(name), &intended));
    let mistyped =
        || known.iter().min_by_key(|name| distance(name)).filter(|name| distance(name) <= (name.len() / 3).max(1));
    same.or_else(mistyped).or_else(shortened).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_similar_names() {
        let known = ["type", "bridgeName", "managed", "egress", "subnet", "gateway", "mtu", "vlan"];
        for (unknown, similar) in [
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
            assert_eq!(nearest(unknown, &known), similar, "{unknown}");
        }
    }
}

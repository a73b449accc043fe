//! On this machine, whether or not its kernel has WireGuard.

use otherix_agent::wireguard::kernel::{self, Device};
use otherix_schemas::error::Causes;
use otherix_testkit::netns::{enter_new, ip_json, sh};

fn names() -> Vec<String> {
    let links = ip_json(&["link"]);
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn without_wireguard_in_the_kernel_that_is_said_and_nothing_is_left() {
    enter_new();
    let has = sh("ip link add probe type wireguard 2>/dev/null && ip link del probe && echo yes || echo no");
    let has = has.trim() == "yes";
    assert_eq!(kernel::is_supported(), has);
    let made = kernel::create("otwg0", "otherix:test", 1440);
    if has {
        made.unwrap();
        assert_eq!(names(), ["lo", "otwg0"]);
    } else {
        let none = "this node's kernel has no WireGuard (CONFIG_WIREGUARD)";
        assert_eq!(Causes(&made.unwrap_err()).to_string(), format!("cannot create `otwg0`: {none}"));
        assert_eq!(Causes(&Device::new("otwg0").get().unwrap_err()).to_string(), none);
        assert_eq!(names(), ["lo"]);
    }
}

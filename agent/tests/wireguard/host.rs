//! Tests on this machine, whether or not its kernel has WireGuard.

use otherix_agent::wireguard::kernel::{self, KernelDevice};
use otherix_schemas::error::Causes;
use otherix_testkit::netns::{enter_new, ip_json, sh};

fn link_names() -> Vec<String> {
    let links = ip_json(&["link"]);
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn without_wireguard_in_the_kernel_a_creation_fails_and_leaves_nothing() {
    enter_new();
    let probe = sh("ip link add probe type wireguard 2>/dev/null && ip link del probe && echo yes || echo no");
    let is_supported = probe.trim() == "yes";
    assert_eq!(kernel::is_supported(), is_supported);
    let created = kernel::create("otwg0", "otherix:test", 1440);
    if is_supported {
        created.unwrap();
        assert_eq!(link_names(), ["lo", "otwg0"]);
    } else {
        let unsupported = "this node's kernel has no WireGuard (CONFIG_WIREGUARD)";
        assert_eq!(Causes(&created.unwrap_err()).to_string(), format!("cannot create `otwg0`: {unsupported}"));
        assert_eq!(Causes(&KernelDevice::new("otwg0").get().unwrap_err()).to_string(), unsupported);
        assert_eq!(link_names(), ["lo"]);
    }
}

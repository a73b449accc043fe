//! The test harness, and the features of the guest's kernel.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use otherix_vmtest::{GuestExit, TestGuest, in_guest};

fn shell(script: &str) -> bool {
    Command::new("sh").args(["-ec", script]).status().unwrap().success()
}

fn which(program: &str) -> PathBuf {
    let output = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

#[test]
fn reports_exit_code_of_script() {
    let result = TestGuest::default().run_script("echo because; exit 7").unwrap();
    assert_eq!(result.ending, GuestExit::Failed(7));
    assert!(result.console.contains("because"), "{}", result.console);
}

#[test]
fn ships_program_with_libraries() {
    // Its libraries are not in the base image.
    let program = which("sqlite3");
    let guest = TestGuest::default().with_program(&program);
    let script = format!("[ $(sqlite3 :memory: 'SELECT 6 * 7') = 42 ] && {} --version", program.display());
    let result = guest.run_script(&script).unwrap();
    assert_eq!(result.ending, GuestExit::Passed, "{}", result.console);
}

#[test]
fn ships_program_below_tmp() {
    let folder = std::env::temp_dir().join(format!("otherix-vmtest-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("own-sqlite3");
    std::fs::copy(which("sqlite3"), &program).unwrap();
    let guest = TestGuest::default().with_program(&program);
    let result = guest.run_script(&format!("{} --version", program.display()));
    std::fs::remove_dir_all(&folder).unwrap();
    let result = result.unwrap();
    assert_eq!(result.ending, GuestExit::Passed, "{}", result.console);
}

#[test]
fn reports_panic_of_body() {
    let result = std::panic::catch_unwind(|| in_guest(|| panic!("the reason")));
    // In the guest the body's own panic arrives here: it is not a `String`, so that the test fails there, as intended.
    let message = result.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("in the guest: Failed(62)"), "{message}");
    assert!(message.contains("the reason"), "{message}");
}

#[test]
fn reports_kernel_panic() {
    let result = TestGuest::default().run_script("echo c > /proc/sysrq-trigger").unwrap();
    assert_eq!(result.ending, GuestExit::Crashed, "{}", result.console);
    assert!(result.console.contains("Kernel panic"), "{}", result.console);
}

#[test]
fn kills_guest_at_deadline() {
    let guest = TestGuest::default().with_deadline(Duration::from_secs(6));
    assert_eq!(guest.run_script("while :; do :; done").unwrap().ending, GuestExit::TimedOut);
}

#[test]
fn bridge_separates_vlans() {
    in_guest(|| {
        assert!(shell(
            "ip link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0; ip link set br0 up
             for port in 1:10 2:10 3:20; do
                n=${port%:*}; ip netns add n$n; ip link add p$n type veth peer name e netns n$n
                ip link set p$n master br0 up; bridge vlan add dev p$n vid ${port#*:} pvid untagged
                ip -n n$n addr add 10.0.0.$n/24 dev e; ip -n n$n link set e up
             done"
        ));
        assert!(shell("ip netns exec n1 ping -c 1 -w 10 10.0.0.2"));
        assert!(!shell("ip netns exec n1 ping -c 2 -w 3 10.0.0.3"));
        assert!(shell("bridge vlan add dev p3 vid 10 pvid untagged; ip netns exec n1 ping -c 1 -w 10 10.0.0.3"));
    });
}

#[test]
fn kernel_has_wireguard_and_br_netfilter() {
    in_guest(|| {
        assert!(std::fs::read_to_string("/proc/version").unwrap().contains("Debian"));
        assert!(shell(
            "! test -e /proc/sys/net/bridge
             modprobe br_netfilter
             test -e /proc/sys/net/bridge/bridge-nf-call-iptables"
        ));
        assert!(shell("ip link add wg0 type wireguard; wg show wg0"));
    });
}

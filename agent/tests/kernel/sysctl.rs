//! Writes to files of `/proc/sys` that need the rtnl lock, while other processes hold it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use otherix_agent::device::nat::action::ForwardUplink;
use otherix_agent::engine::Step;
use otherix_agent::engine::execute;
use otherix_agent::kernel::Kernel;
use otherix_schemas::id::ClusterId;
use otherix_testkit::netns::{enter_new, link, sh};
use uuid::Uuid;

const FORWARDING: &str = "/proc/sys/net/ipv4/conf/uplink/forwarding";

/// Returns the number of voluntary context switches of this thread, one for each wait.
fn voluntary_switches() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

/// A plain `write` spins until the lock is released, and never waits. It is all that Linux before 5.10 or without
/// `CONFIG_AIO` supports: there this test fails.
#[test]
fn a_write_waits_for_the_lock_and_succeeds() {
    enter_new();
    sh("ip link add uplink type bridge");
    let index = u32::try_from(link("uplink").unwrap()["ifindex"].as_u64().unwrap()).unwrap();
    let step = Step::new(ForwardUplink { index, name: "uplink".to_owned(), on: true });
    let mut kernel = Kernel::open().unwrap();
    let (stop, deadline) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(20));
    let has_waited = thread::scope(|scope| {
        for other in 0..2 {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                    sh(&format!("ip link add other{other} type bridge; ip link del other{other}"));
                }
            });
        }
        let mut has_waited = false;
        while !has_waited && Instant::now() < deadline {
            fs::write(FORWARDING, "0").unwrap();
            let before = voluntary_switches();
            execute(&mut kernel, std::slice::from_ref(&step), ClusterId::new(Uuid::nil())).pop().unwrap().unwrap();
            has_waited = voluntary_switches() > before;
            assert_eq!(fs::read_to_string(FORWARDING).unwrap(), "1\n");
        }
        stop.store(true, Ordering::Relaxed);
        has_waited
    });
    assert!(has_waited, "it never waited while other processes changed links");
}

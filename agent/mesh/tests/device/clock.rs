//! A node whose clock was ahead once: its handshakes state an earlier time than those before, and are not accepted.

use std::path::Path;
use std::process::Command;

use otherix_mesh::config::{WgDeviceUpdate, WgPeerUpdate};
use otherix_testkit::wait::wait_for_blocking;
use rustix::process::Signal;

use crate::node::{DEADLINE, PORT, nodes};

/// A library to preload, by which a process sees a clock that is ahead by AHEAD seconds.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME) time->tv_sec += atol(getenv("AHEAD"));
    return failed;
}
"#;

fn compile_clock(folder: &Path) -> String {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    std::fs::write(&source, CLOCK).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
    assert!(compiled.success());
    library.display().to_string()
}

#[test]
fn a_peer_whose_clock_was_ahead_once_is_reached() {
    let [mut one, mut other] = nodes();
    let library = compile_clock(&other.folder());
    other.environment = vec![("LD_PRELOAD".to_owned(), library), ("AHEAD".to_owned(), "86400".to_owned())];
    one.start(&[]);
    other.start(&[]);
    // Without an endpoint, so that the other node initiates the handshake.
    one.join(&[]);
    one.change(WgPeerUpdate { endpoint: None, ..other.as_peer() });
    let peers = vec![one.as_peer()];
    let joined = WgDeviceUpdate { private_key: Some(Some(other.key.clone())), peers, ..WgDeviceUpdate::default() };
    other.join(&[]);
    other.client().set(&joined).unwrap();
    other.reaches(&one.address());
    assert_eq!(one.dump(&other)[2], format!("{}:{PORT}", other.underlay()));
    let times = [&one, &other].map(|node| node.client().get().unwrap().peers[0].last_handshake.unwrap());
    assert!(times[1].duration_since(times[0]).unwrap().as_secs() > 86_000, "its clock is ahead");

    other.signal(Signal::KILL);
    other.environment.clear();
    other.start(&[]);
    other.client().set(&WgDeviceUpdate { listen_port: Some(PORT), ..joined }).unwrap();
    // Sends nothing itself, so that only an answer to the handshakes of the other node helps.
    other.reaches(&one.address());
    assert!(one.log().contains("whose clock was set back"), "{}", one.log());
    wait_for_blocking(DEADLINE, "the session to be confirmed", || !one.client().get().unwrap().peers[0].has_old_clock);
}

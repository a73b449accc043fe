//! The responder on taps in a network namespace, asked by the DHCP client of busybox, and by `dig` ([`names`]).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod host;
mod names;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use otherix_responder::{Guest, Lease, Responder};
use otherix_runtime::SystemRuntime;
use otherix_testkit::netns::{enter_new, sh};
use otherix_tun::{FRAME_MAX, TapDevice};

use crate::host::GuestHost;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const GATEWAY_MAC: [u8; 6] = [2, 0x6f, 0x74, 0x67, 0x77, 1];

fn guest(answers_for_gateway: bool) -> Guest {
    let lease = Lease {
        address: Ipv4Addr::new(10, 20, 0, 5),
        netmask: Ipv4Addr::new(255, 255, 255, 0),
        server: Ipv4Addr::new(10, 20, 0, 1),
        is_router: true,
        mtu: 1390,
    };
    Guest { mac: MAC, lease, gateway_mac: GATEWAY_MAC, answers_for_gateway, names: None }
}

fn responder() -> Responder {
    Responder::new(SystemRuntime::shared())
}

fn on(tap: &str, guest: Guest) -> BTreeMap<String, Guest> {
    BTreeMap::from([(tap.to_owned(), guest)])
}

/// As [`on_another_thread`], with the guest.
async fn meanwhile<T: Send + 'static>(host: &Arc<GuestHost>, work: fn(&GuestHost) -> T) -> T {
    let host = Arc::clone(host);
    on_another_thread(move || work(&host)).await
}

#[tokio::test]
async fn a_client_gets_its_lease_whatever_the_bridge_does_with_it() {
    enter_new();
    let host = Arc::new(GuestHost::new());
    assert_eq!(meanwhile(&host, |host| host.lease("-O mtu -O staticroutes -t 1")).await, None, "nobody answers");
    // The port is locked, and the packet filter drops what the guest sends: the socket receives it before.
    sh("bridge link set dev tap learning off locked on\n\
        nft 'add table bridge t; add chain bridge t c { type filter hook prerouting priority -300; }; \
             add rule bridge t c iifname tap drop'");
    let mut responder = responder();
    responder.set(&on("tap", guest(true)));
    let lease = meanwhile(&host, |host| host.lease("-O mtu -O staticroutes")).await.unwrap();
    for (name, value) in [
        ("ip", "10.20.0.5"),
        ("subnet", "255.255.255.0"),
        ("router", "10.20.0.1"),
        ("serverid", "10.20.0.1"),
        ("mtu", "1390"),
        ("lease", "3600"),
        ("staticroutes", "0.0.0.0/0 10.20.0.1"),
    ] {
        assert_eq!(lease.get(name).map(String::as_str), Some(value), "{name} of {lease:?}");
    }
    // It asks for the address of another, is refused, and gets its own.
    let lease = meanwhile(&host, |host| host.lease("-r 10.20.0.9")).await.unwrap();
    assert_eq!(lease["ip"], "10.20.0.5");
    // One that receives broadcasts only.
    assert!(meanwhile(&host, |host| host.lease("-B")).await.is_some());

    responder.set(&BTreeMap::new());
    assert_eq!(responder.count(), 0);
    assert_eq!(meanwhile(&host, |host| host.lease("-t 1")).await, None, "its NIC is deleted");
}

#[tokio::test]
async fn the_gateway_answers_where_the_node_has_no_address() {
    enter_new();
    let host = Arc::new(GuestHost::new());
    let mut responder = responder();
    responder.set(&on("tap", guest(true)));
    host.sh("ip address add 10.20.0.5/24 dev eth0");
    let ping = |host: &GuestHost| host.run("ping -q -c 1 -W 2 -s 1000 10.20.0.1").status.success();
    assert!(meanwhile(&host, ping).await);
    let neighbour = host.sh("ip neighbour show 10.20.0.1");
    assert!(neighbour.contains("02:6f:74:67:77:01"), "{neighbour}");
    let other = |host: &GuestHost| host.run("ping -q -c 1 -W 0.3 10.20.0.2").status.success();
    assert!(!meanwhile(&host, other).await, "other addresses are not the gateway's");
    // A guest with another address than its own gets no answers.
    host.sh("ip address flush dev eth0; ip address add 10.20.0.6/24 dev eth0; ip neighbour flush dev eth0");
    let short = |host: &GuestHost| host.run("ping -q -c 1 -W 0.5 10.20.0.1").status.success();
    assert!(!meanwhile(&host, short).await);
    host.sh("ip address flush dev eth0; ip address add 10.20.0.5/24 dev eth0; ip neighbour flush dev eth0");
    assert!(meanwhile(&host, ping).await);
    // Where the node's kernel has the address, it is left to it.
    responder.set(&on("tap", guest(false)));
    host.sh("ip neighbour flush dev eth0");
    assert!(!meanwhile(&host, short).await);
}

#[tokio::test]
async fn a_tap_that_is_made_again_is_answered_again() {
    enter_new();
    let host = Arc::new(GuestHost::new());
    let mut responder = responder();
    let guests = on("tap", guest(true));
    responder.set(&guests);
    assert!(meanwhile(&host, |host| host.lease("")).await.is_some());
    // Down and up again: the same socket goes on.
    sh("ip link set tap down\nip link set tap up");
    assert!(meanwhile(&host, |host| host.lease("")).await.is_some());
    let holder = host.pid();
    sh(&format!(
        "ip link del tap\nip link add tap type veth peer name eth0 address 52:54:00:01:02:03 netns {holder}\n\
         ip link set tap up"
    ));
    host.sh("ip link set eth0 up");
    assert_eq!(meanwhile(&host, |host| host.lease("-t 1")).await, None, "before the next pass");
    responder.set(&guests);
    assert!(meanwhile(&host, |host| host.lease("")).await.is_some());
    sh("ip link del tap");
    responder.set(&guests);
    assert_eq!(responder.count(), 0);
}

/// Returns a DISCOVER of the guest with this transaction, of 300 bytes.
fn discover(number: u32) -> Vec<u8> {
    let mut message = [&[1, 1, 6, 0][..], &number.to_be_bytes(), &[0; 20], &MAC].concat();
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    message.resize(300, 0);
    let udp = [&[0, 68, 0, 67, 1, 52, 0, 0][..], &message].concat();
    let ip = [0x45, 0, 1, 72, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    [&[0xff; 6][..], &MAC, &[8, 0], &ip, &udp].concat()
}

/// Sends a question, and returns how long the answer takes, if it comes in time.
fn ask(tap: &TapDevice, buffer: &mut [u8], number: u32, within: Duration) -> Option<Duration> {
    tap.write(&discover(number)).unwrap();
    await_answer(tap, buffer, number, within)
}

fn await_answer(tap: &TapDevice, buffer: &mut [u8], number: u32, within: Duration) -> Option<Duration> {
    let begin = Instant::now();
    while begin.elapsed() < within {
        // What the kernel sends by itself is skipped.
        if let Ok(length) = tap.read(buffer)
            && length > 50
            && buffer[23] == 17
            && buffer[46..50] == number.to_be_bytes()
        {
            return Some(begin.elapsed());
        }
        std::thread::yield_now();
    }
    None
}

/// Runs blocking work on another thread while the responder's tasks run on this one.
async fn on_another_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.await.unwrap()
}

#[tokio::test]
async fn a_flood_is_answered_at_a_bounded_rate() {
    enter_new();
    let tap = TapDevice::create("tap0").unwrap();
    sh("ip link set tap0 up");
    let mut responder = responder();
    responder.set(&on("tap0", guest(true)));
    let (times, answers) = on_another_thread(move || {
        let mut buffer = vec![0; FRAME_MAX];
        let mut times: Vec<_> = (0..100)
            .map(|number| {
                std::thread::sleep(Duration::from_millis(10));
                ask(&tap, &mut buffer, number, Duration::from_secs(5)).unwrap()
            })
            .collect();
        times.sort();
        let (begin, mut answers) = (Instant::now(), 0);
        while begin.elapsed() < Duration::from_secs(1) {
            (0..50).for_each(|_| tap.write(&discover(777)).unwrap());
            while await_answer(&tap, &mut buffer, 777, Duration::from_micros(300)).is_some() {
                answers += 1;
            }
        }
        // It ends with the flood.
        std::thread::sleep(Duration::from_secs(1));
        assert!(ask(&tap, &mut buffer, 5, Duration::from_secs(5)).is_some());
        (times, answers)
    })
    .await;
    // Other tests run at the same time: this is no measurement.
    let (half, most) = (times[50], times[98]);
    assert!(half < Duration::from_millis(20), "half of the answers took {half:?}, 99 of 100 {most:?}");
    assert!((100..=300).contains(&answers), "{answers} answers in a second");
}

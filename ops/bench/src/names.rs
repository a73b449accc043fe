//! What a node answers its guests: questions about names in a second on one core, through the sockets of taps, and the
//! time that an answer of DHCP takes, also while another guest floods.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use otherix_responder::dns::{Limits, Names, Zone};
use otherix_responder::{Guest, GuestNames, Lease, Responder};
use otherix_runtime::SystemRuntime;
use otherix_testkit::netns;
use otherix_tun::{FRAME_MAX, TapDevice};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::BenchError;
use crate::report::{Figures, report_progress, target_result};
use crate::thread::BenchThread;

/// The VMs of the network.
const VMS: u32 = 10_000;

/// Guests that ask, and their questions that are not answered yet, of each.
const GUESTS: u8 = 4;
const WINDOW: usize = 16;

/// How long questions are asked, and how long they may all stay unanswered.
const ASKING: Duration = Duration::from_secs(4);
const LOST: Duration = Duration::from_millis(100);

/// Questions of DHCP, and the pause between them: a guest may ask 20 times in 100 ms.
const LEASES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(6);

/// Targets: questions in a second, and milliseconds.
const RATE: f64 = 20_000.0;
const LEASE_MS: f64 = 1.0;

const GATEWAY: [u8; 6] = [2, 0x6f, 0x74, 0x67, 0x77, 1];

/// Measures, and returns a table and a line of figures.
pub(crate) async fn run() -> Result<String, BenchError> {
    report_progress("bench: asking for names, and for addresses");
    let mut rate = BenchThread::start("names", || {
        netns::enter_new();
        Ok(measure_rate())
    })?;
    let (rate, of_core) = rate.result().await?;
    let mut leases = BenchThread::start("leases", || {
        netns::enter_new();
        Ok(measure_leases())
    })?;
    let [idle, flooded] = leases.result().await?.map(|times| Figures::of(times.into_iter()));
    Ok([
        format!("{GUESTS} guests of a network with {VMS} VMs"),
        format!("{:<52}{rate:>10.0}", "questions about its names answered in a second"),
        format!("{:<52}{of_core:>10.0}", "  in a second of the responder's processor time"),
        format!("{:<52}{:>10}{:>10}", "an answer of DHCP, ms", "p50", "p99"),
        format!("{:<52}{:>10.3}{:>10.3}", "  alone", idle.p50, idle.p99),
        format!("{:<52}{:>10.3}{:>10.3}", "  while another guest asks as much as it can", flooded.p50, flooded.p99),
        String::new(),
        format!(
            "{rate:.0} questions a second on one core (at least {RATE}: {}); DHCP p99 {:.2} ms (at most {LEASE_MS}: \
             {}), beside a flood {:.2} ms",
            target_result(rate >= RATE),
            idle.p99,
            target_result(idle.p99 <= LEASE_MS),
            flooded.p99,
        ),
    ]
    .join("\n"))
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 20, 0, 2).to_bits() + number)
}

fn mac(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 1, 2, number]
}

/// Creates guests of one network with their taps, by number, and answers them.
fn answered(limits: Limits) -> Result<(Responder, Vec<TapDevice>), BenchError> {
    let zone = Zone::new("app".to_owned(), (Ipv4Addr::new(10, 20, 0, 0), 16), None);
    zone.set_names(Names::new((0..VMS).map(|number| (format!("vm-{number}"), address(number)))));
    let zone = Arc::new(zone);
    let (mut guests, mut taps) = (BTreeMap::new(), Vec::new());
    for number in 0..GUESTS {
        let name = format!("tap{number}");
        taps.push(TapDevice::create(&name)?);
        netns::sh(&format!("ip link set {name} up"));
        let server = Ipv4Addr::new(10, 20, 0, 1);
        let (address, netmask) = (address(number.into()), Ipv4Addr::new(255, 255, 0, 0));
        let lease = Lease { address, netmask, server, is_router: false, mtu: 1500 };
        let names = Some(GuestNames { host: format!("vm-{number}"), zone: Arc::clone(&zone) });
        let guest = Guest { mac: mac(number), lease, gateway_mac: GATEWAY, answers_for_gateway: true, names };
        guests.insert(name, guest);
    }
    let mut responder = Responder::with_limits(SystemRuntime::shared(), limits);
    responder.set(&guests);
    Ok((responder, taps))
}

/// Returns a datagram of a guest.
fn datagram(guest: u8, (source, destination): (Ipv4Addr, Ipv4Addr), ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or_default();
    let [udp, ip] = [(length + 8).to_be_bytes(), (length + 28).to_be_bytes()];
    let header = [&[0x45, 0][..], &ip, &[0, 0, 0, 0, 64, 17, 0, 0], &source.octets(), &destination.octets()].concat();
    let ports = ports.map(u16::to_be_bytes).concat();
    [&GATEWAY[..], &mac(guest), &[8, 0], &header, &ports, &udp, &[0, 0], payload].concat()
}

fn question(guest: u8, id: u16) -> Vec<u8> {
    let name = format!("vm-{}", u32::from(id) % VMS);
    let mut message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in [name.as_str(), "app", "otherix", "internal"] {
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    datagram(guest, (address(guest.into()), Ipv4Addr::new(10, 20, 0, 1)), [40_000, 53], &message)
}

fn discover(guest: u8, transaction: u32) -> Vec<u8> {
    let mut message = [&[1, 1, 6, 0][..], &transaction.to_be_bytes(), &[0; 20], &mac(guest)].concat();
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    message.resize(300, 0);
    datagram(guest, (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST), [68, 67], &message)
}

/// Reads a frame, and returns whether it is a datagram from this port, and what it begins with.
fn received(tap: &TapDevice, buffer: &mut [u8], port: u16) -> Option<Vec<u8>> {
    let length = tap.read(buffer).ok()?;
    let frame = buffer.get(..length)?;
    let is_answer = frame.get(23) == Some(&17) && frame.get(34..36) == Some(&port.to_be_bytes());
    Some(if is_answer { frame.get(42..).unwrap_or_default().to_vec() } else { Vec::new() })
}

async fn measure_rate() -> Result<(f64, f64), BenchError> {
    let (_responder, taps) = answered(Limits { per_second: 10_000_000, burst: 1_000_000 })?;
    let (finished, asked) = oneshot::channel();
    let processor = || clock_gettime(ClockId::ThreadCPUTime);
    let before = processor();
    std::thread::spawn(move || finished.send(ask_for_names(&taps)));
    let (answers, elapsed) = asked.await?;
    let after = processor();
    let seconds = (after.tv_sec - before.tv_sec) as f64 + (after.tv_nsec - before.tv_nsec) as f64 / 1e9;
    Ok((answers as f64 / elapsed.as_secs_f64(), answers as f64 / seconds))
}

/// Asks as much as is answered. Returns how many questions were, in how much time.
fn ask_for_names(taps: &[TapDevice]) -> (u64, Duration) {
    let mut buffer = vec![0; FRAME_MAX];
    let (begin, mut answers, mut id) = (Instant::now(), 0, 0_u16);
    let mut open = vec![(0, begin); taps.len()];
    while begin.elapsed() < ASKING {
        for ((number, tap), (waiting, since)) in (0..).zip(taps).zip(&mut open) {
            if since.elapsed() > LOST {
                *waiting = 0;
            }
            while *waiting < WINDOW && tap.write(&question(number, id)).is_ok() {
                (*waiting, *since, id) = (*waiting + 1, Instant::now(), id.wrapping_add(1));
            }
            while let Some(answer) = received(tap, &mut buffer, 53) {
                // With an address.
                if answer.get(7) == Some(&1) {
                    answers += 1;
                    *waiting = waiting.saturating_sub(1);
                }
            }
        }
    }
    (answers, begin.elapsed())
}

async fn measure_leases() -> Result<[Vec<Duration>; 2], BenchError> {
    let (_responder, mut taps) = answered(Limits::default())?;
    let (hostile, asking) = (taps.pop().ok_or("no tap")?, taps.pop().ok_or("no tap")?);
    let (finished, asked) = oneshot::channel();
    std::thread::spawn(move || {
        let idle = ask_for_leases(&asking);
        let (stop, stopped) = channel::<()>();
        let flood = std::thread::spawn(move || {
            let mut buffer = vec![0; FRAME_MAX];
            while matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                for id in 0..50 {
                    let _sent = hostile.write(&question(GUESTS - 1, id));
                }
                while received(&hostile, &mut buffer, 53).is_some() {}
                // Ten thousand questions a second: more is not asked, but keeps a core of this machine.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let flooded = ask_for_leases(&asking);
        drop(stop);
        let _ended = flood.join();
        finished.send([idle, flooded])
    });
    Ok(asked.await?)
}

fn ask_for_leases(tap: &TapDevice) -> Vec<Duration> {
    let mut buffer = vec![0; FRAME_MAX];
    let mut times = Vec::new();
    for transaction in 0..LEASES {
        std::thread::sleep(PAUSE);
        let begin = Instant::now();
        let _sent = tap.write(&discover(GUESTS - 2, transaction));
        while begin.elapsed() < Duration::from_secs(1) {
            let answer = received(tap, &mut buffer, 67);
            if answer.is_some_and(|answer| answer.get(4..8) == Some(&transaction.to_be_bytes())) {
                break;
            }
            std::thread::yield_now();
        }
        times.push(begin.elapsed());
    }
    times
}

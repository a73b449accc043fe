//! Properties under SIGKILL of the control plane and of its server during writes: every acknowledged network exists
//! exactly once, and the stream is a copy of the journal.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use otherix_testkit::wait::wait_for;
use rustix::process::{Pid, Signal, kill_process};

use super::daemon::{DEADLINE, OtherixdProcess, create, list_all, overlay};

#[tokio::test]
async fn sigkill_loses_and_duplicates_nothing() {
    const WORKERS: usize = 8;
    let mut daemon = OtherixdProcess::start().await;
    let mut connections = Vec::new();
    for _ in 0..WORKERS {
        connections.push(daemon.connect("admin").await);
    }
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let work = futures::future::join_all(connections.iter().enumerate().map(async |(worker, admin)| {
        let mut names = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let view = create(admin, &overlay(&format!("net-{worker}-{}", names.len()))).await;
            acknowledged.fetch_add(1, Ordering::SeqCst);
            names.push((view.name, view.id));
        }
        names
    }));
    let progress = async || {
        let before = acknowledged.load(Ordering::SeqCst);
        let has_progressed = async || acknowledged.load(Ordering::SeqCst) > before + 100;
        wait_for(DEADLINE, "acknowledged networks", has_progressed).await;
    };
    let faults = async {
        for round in 0..2 {
            progress().await;
            let servers = daemon.servers();
            if round == 0 {
                kill_process(Pid::from_raw(*servers.first().unwrap()).unwrap(), Signal::KILL).unwrap();
                wait_for(DEADLINE, "another server", async || {
                    let current = daemon.servers();
                    !current.is_empty() && current != servers
                })
                .await;
                progress().await;
            }
            daemon.kill();
            daemon.wait_for_no_servers().await;
            daemon.start_again().await;
        }
        progress().await;
        stop.store(true, Ordering::SeqCst);
    };
    let (names, ()) = tokio::join!(work, faults);
    let names: BTreeSet<_> = names.into_iter().flatten().collect();
    let admin = daemon.connect("admin").await;
    let listed: Vec<_> = list_all(&admin).await.into_iter().map(|view| (view.name, view.id)).collect();
    assert_eq!(listed.len(), listed.iter().collect::<BTreeSet<_>>().len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), names);
    assert_eq!(daemon.assert_stream_is_copy().await, names.len() as u64);
}

//! SIGKILL of servers during writes. Random faults are in `soak`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use otherix_testkit::wait::wait_for_blocking;

use crate::lab::{DEADLINE, Lab};

/// Creates networks until `stop`, and returns the acknowledged names.
fn write_networks(lab: &Lab, writer: u32, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("net-{writer}-{number}");
        let bridge = format!("b{writer}-{number}");
        let output = lab.otherix(&["network", "create", &name, "--bridge-name", &bridge, "--managed"]);
        if output.status.success() {
            acknowledged.push(name);
        }
        number += 1;
    }
    acknowledged
}

#[test]
fn lab_cluster_survives_sigkill_of_control_plane_and_nats() {
    let lab = Lab::up("kill", 2);
    let stop = AtomicBool::new(false);
    let mut acknowledged: Vec<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                scope.spawn({
                    let (lab, stop) = (&lab, &stop);
                    move || write_networks(lab, writer, stop)
                })
            })
            .collect();
        let positions = || lab.journal("SELECT COALESCE(MAX(position), 0) FROM events")[0].parse::<u64>().unwrap();
        for _ in 0..3 {
            // Each kill happens during writes, and the next only once writes have resumed.
            for process in ["nats", "otherixd"] {
                let before = positions();
                wait_for_blocking(DEADLINE, "writes to resume", || positions() > before + 5);
                lab.lab(&["kill", process]);
                lab.lab(&["start", process]);
            }
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let created =
        lab.journal("SELECT body ->> '$.data.name' FROM events WHERE type LIKE '%network.created%' ORDER BY 1");
    let mut distinct = created.clone();
    distinct.dedup();
    assert_eq!(created, distinct, "nothing is duplicated");
    acknowledged.sort();
    assert!(acknowledged.len() > 30, "only {} networks were created", acknowledged.len());
    assert!(acknowledged.iter().all(|name| distinct.binary_search(name).is_ok()), "nothing acknowledged is missing");

    let everything_ready = || {
        let mut views = Vec::new();
        let mut cursor = None;
        loop {
            let mut args = vec!["network", "list", "--limit", "200"];
            let next: Option<String> = cursor.take();
            if let Some(next) = &next {
                args.extend(["--cursor", next]);
            }
            let page = lab.ok(&args);
            views.extend(page["data"].as_array().unwrap().clone());
            match page["meta"]["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        views.len() == distinct.len() && views.iter().all(|view| view["status"]["ready"] == 2)
    };
    wait_for_blocking(DEADLINE, "every network to be ready on both nodes", everything_ready);
    for node in 1..=2 {
        assert_eq!(lab.managed_links(node).len(), distinct.len(), "one bridge for each network");
    }
    lab.assert_stream_is_journal();
}

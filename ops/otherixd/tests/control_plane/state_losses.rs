//! Buckets equal the answers of queries byte for byte, whatever is lost while commands go on.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failed assumption is a failed test; figures are printed"
)]

use std::collections::BTreeMap;
use std::path::Path;

use otherix_schemas::bucket::{Bucket, key_of_id, key_of_name};
use otherix_schemas::id::NodeId;
use otherix_schemas::network::{ListNetworks, NetworkView};
use otherix_schemas::node::{JoinNode, ListNodes};
use otherix_schemas::projection::{
    AllProjections, ProjectionStatus, ProjectionsView, RebuildProjections, RebuildState, RebuildView,
};
use otherix_schemas::request::Request;
use otherix_schemas::user::UserRole;
use otherix_schemas::vm::{CreateVm, DeleteVm, ListVms, VmById, VmView};
use otherix_testkit::wait::wait_for;
use otherix_transport::Nats;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::daemon::{DEADLINE, OtherixdProcess, call, create, overlay};
use crate::state::{contexts, delete, raw_entries, reader};

/// What a bucket must have: the views that a query lists, as they were received, under ids and names.
async fn listed(admin: &Nats, request: Request) -> BTreeMap<String, String> {
    let views: Vec<Box<RawValue>> = call(admin, request, &json!({ "limit": 200 }), None).await.unwrap().data;
    let mut expected = BTreeMap::new();
    for view in views {
        let fields: Value = serde_json::from_str(view.get()).unwrap();
        let id: Uuid = fields["id"].as_str().unwrap().parse().unwrap();
        let name = fields["name"].as_str().unwrap().to_lowercase();
        expected.insert(key_of_id(id), view.get().to_owned());
        expected.insert(key_of_name(&name), view.get().to_owned());
    }
    expected
}

/// The view in an entry, as it is written there. Each has the position that it takes into account.
fn view_of(entry: &str) -> String {
    let (data, position) = entry.strip_prefix("{\"data\":").unwrap().rsplit_once(",\"meta\":{\"position\":").unwrap();
    let position: u64 = position.strip_suffix("}}").unwrap().parse().unwrap();
    assert!(position > 0, "{entry}");
    data.to_owned()
}

async fn assert_equal(daemon: &OtherixdProcess, file: &Path) {
    let admin = daemon.connect("admin").await;
    for (bucket, request) in [
        (Bucket::Networks, Request::of::<ListNetworks>()),
        (Bucket::Vms, Request::of::<ListVms>()),
        (Bucket::Nodes, Request::of::<ListNodes>()),
    ] {
        wait_for(DEADLINE, "the entries", async || {
            let expected = listed(&admin, request).await;
            assert!(!expected.is_empty(), "{bucket:?}");
            let found = raw_entries(daemon, file, bucket).await;
            let views: BTreeMap<String, String> =
                found.iter().map(|(key, entry)| (key.clone(), view_of(entry))).collect();
            if views == expected { Ok(()) } else { Err((bucket, expected, found)) }
        })
        .await;
    }
}

/// Numbers of a xorshift generator, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

async fn create_vm(admin: &Nats, name: &str) -> VmView {
    let body = json!({ "name": name, "image_url": "https://images.example/debian-12.qcow2", "arch": "amd64" });
    call(admin, Request::of::<CreateVm>(), &body, Some(name)).await.unwrap().data
}

#[tokio::test]
async fn buckets_equal_the_answers_whatever_is_lost_meanwhile() {
    let mut daemon = OtherixdProcess::start().await;
    let (_, file) = reader(&daemon, "ann", UserRole::Viewer).await;
    let node_id = NodeId::new(Uuid::now_v7());
    let node = daemon.node(node_id, "node-1").await;
    let body = json!({ "node_id": node_id, "name": "node-1" });
    let _: Value = call(&node, Request::of::<JoinNode>(), &body, None).await.unwrap().data;
    let admin = daemon.connect("admin").await;
    // These stay, so that no bucket is empty.
    create(&admin, &overlay("kept")).await;
    create_vm(&admin, "vm-kept").await;
    let [control, mirrors] = contexts(&daemon).await;
    let mut numbers = Numbers(0x2545_F491_4F6C_DD1D);
    let (mut networks, mut vms): (Vec<NetworkView>, Vec<VmView>) = (Vec::new(), Vec::new());
    for round in 0..6 {
        for number in 0..12 {
            match numbers.below(5) {
                0 if !networks.is_empty() => {
                    let view = networks.swap_remove(numbers.below(networks.len()));
                    delete(&admin, &view).await;
                }
                1 if !vms.is_empty() => {
                    let id = vms.swap_remove(numbers.below(vms.len())).id;
                    let _: Value = call(&admin, Request::of::<DeleteVm>(), &VmById { id }, None).await.unwrap().data;
                }
                2 => vms.push(create_vm(&admin, &format!("vm-{round}-{number}")).await),
                _ => networks.push(create(&admin, &overlay(&format!("Net {round}.{number}"))).await),
            }
            let bucket = Bucket::ALL[numbers.below(3)].stream();
            match (number, round % 3) {
                // While entries are written. Whoever makes them again may be faster, or not have done so yet.
                (6, 0) => drop(control.delete_stream(bucket).await),
                (6, 1) => drop(mirrors.delete_stream(bucket).await),
                (6, 2) => {
                    daemon.kill();
                    daemon.wait_for_no_servers().await;
                    daemon.start_again().await;
                }
                _ => {}
            }
        }
        assert_equal(&daemon, &file).await;
    }
}

/// A bucket that is lost while the read models are rebuilt is written again from whole ones, the old or the new.
#[tokio::test]
async fn a_bucket_is_whole_while_read_models_are_rebuilt() {
    const NETWORKS: u64 = 1_000;
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let [control, _] = contexts(&daemon).await;
    let count = async || {
        let stream = control.get_stream(Bucket::Networks.stream()).await.ok()?;
        Some(stream.cached_info().state.messages)
    };
    let entries = async |wanted: u64| {
        wait_for(DEADLINE, "the entries", async || {
            let found = count().await;
            if found == Some(wanted) { Ok(()) } else { Err(found) }
        })
        .await;
    };
    let rebuild = async || {
        let status = Request::of::<ProjectionStatus>();
        let status: ProjectionsView = call(&admin, status, &AllProjections {}, None).await.unwrap().data;
        status.rebuild.unwrap()
    };
    let names: Vec<String> = (0..NETWORKS).map(|number| format!("net-{number}")).collect();
    for chunk in names.chunks(100) {
        let created = chunk.iter().map(|name| async { create(&admin, &overlay(name)).await });
        futures::future::join_all(created).await;
    }
    entries(2 * NETWORKS).await;
    let begin = Request::of::<RebuildProjections>();
    let _: RebuildView = call(&admin, begin, &AllProjections {}, None).await.unwrap().data;
    control.delete_stream(Bucket::Networks.stream()).await.unwrap();
    assert_eq!(rebuild().await.state, RebuildState::Running, "it was too fast for this test");
    entries(2 * NETWORKS).await;
    // Whatever takes the place of what: nothing is taken away.
    loop {
        let is_running = rebuild().await.state == RebuildState::Running;
        assert_eq!(count().await, Some(2 * NETWORKS));
        if !is_running {
            break;
        }
    }
    create(&admin, &overlay("after")).await;
    entries(2 * (NETWORKS + 1)).await;
}

/// A measurement: `cargo nextest run --run-ignored only`.
#[tokio::test]
#[ignore = "a measurement that takes a minute"]
async fn ten_thousand_networks_are_written_in_time_that_grows_with_their_number() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let [control, _] = contexts(&daemon).await;
    let count = async || {
        let stream = control.get_stream(Bucket::Networks.stream()).await.ok()?;
        Some(stream.cached_info().state.messages)
    };
    let mut made = 0_u64;
    for wanted in [2_500_u64, 5_000, 10_000] {
        let begin = std::time::Instant::now();
        let names: Vec<String> = (made..wanted).map(|number| format!("net-{number}")).collect();
        for chunk in names.chunks(64) {
            let created = chunk.iter().map(|name| async { create(&admin, &overlay(name)).await });
            futures::future::join_all(created).await;
        }
        made = wanted;
        let commands = begin.elapsed();
        wait_for(std::time::Duration::from_secs(120), "the entries", async || {
            let found = count().await;
            if found == Some(2 * wanted) { Ok(()) } else { Err(found) }
        })
        .await;
        let behind = begin.elapsed() - commands;
        control.delete_stream(Bucket::Networks.stream()).await.unwrap();
        let begin = std::time::Instant::now();
        wait_for(std::time::Duration::from_secs(120), "the entries again", async || {
            let found = count().await;
            if found == Some(2 * wanted) { Ok(()) } else { Err(found) }
        })
        .await;
        let again = begin.elapsed();
        let mut single = Vec::new();
        for number in 0..10 {
            let begin = std::time::Instant::now();
            let view = create(&admin, &overlay(&format!("single-{wanted}-{number}"))).await;
            made += 1;
            let subject = Bucket::Networks.subject(&key_of_id(view.id.uuid()));
            let stream = control.get_stream(Bucket::Networks.stream()).await.unwrap();
            wait_for(std::time::Duration::from_secs(120), "the entry", async || {
                stream.get_last_raw_message_by_subject(&subject).await.map(drop)
            })
            .await;
            single.push(begin.elapsed());
            // At another moment of the pause between two comparisons.
            tokio::time::sleep(std::time::Duration::from_millis(370)).await;
        }
        single.sort();
        println!(
            "{wanted} networks: commands {commands:?}, behind {behind:?}, made again {again:?}, one more {:?} to {:?}",
            single[0], single[9]
        );
    }
}

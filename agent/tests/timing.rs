#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, dead_code)]
mod support;
use std::time::{Duration, Instant};
use otherix_agent::{kernel::Kernel, reconcile::Reconciler, model::{desired::*, plan::Step}};
use otherix_schemas::{id::*, position::Position};
use otherix_testkit::{nats::NatsServer, netns::enter_new};
use support::*; use uuid::Uuid;
fn p(mut v: Vec<Duration>, what: &str) { v.sort(); eprintln!("{what}: p50 {:?} p99 {:?}", v[v.len()/2], v[v.len()*99/100]); }
#[tokio::test]
async fn timing() {
    enter_new();
    let c = ClusterId::new(Uuid::from_u128(1));
    let mut k = Kernel::open().unwrap();
    let mut v = vec![];
    for i in 0..200u128 {
        let t = Instant::now();
        k.execute(&Step::Create { network: NetworkId::new(Uuid::from_u128(i)), bridge: DesiredBridge { name: format!("a{i}"), mtu: 1500 } }, c).unwrap();
        v.push(t.elapsed());
    }
    p(v, "kernel.execute(create)");
    let mut r = Reconciler::new().unwrap();
    let mut d = Desired { cluster: c, networks: Default::default() };
    for i in 0..200u128 { d.networks.insert(NetworkId::new(Uuid::from_u128(i)), DesiredNetwork { generation: Position::new(1), want: Want::Bridge(DesiredBridge { name: format!("a{i}"), mtu: 1500 }) }); }
    r.round(&d, true).await.unwrap();
    let mut v = vec![];
    for i in 1000..1200u128 {
        d.networks.insert(NetworkId::new(Uuid::from_u128(i)), DesiredNetwork { generation: Position::new(1), want: Want::Bridge(DesiredBridge { name: format!("b{i}"), mtu: 1500 }) });
        let t = Instant::now(); r.round(&d, true).await.unwrap(); v.push(t.elapsed());
    }
    p(v, "round with one create, 200..400 links");
    let mut o = k.observe().unwrap();
    let mut v = vec![];
    for _ in 0..200 { let t = Instant::now(); std::hint::black_box(otherix_agent::model::plan::plan(&d, &o, &Default::default(), true)); v.push(t.elapsed()); }
    p(v, "plan of 400");
    let mut r = Reconciler::new().unwrap();
    d.networks.clear();
    r.round(&d, false).await.unwrap();
    let mut v = vec![];
    for i in 2000..2200u128 {
        d.networks.clear();
        d.networks.insert(NetworkId::new(Uuid::from_u128(i)), DesiredNetwork { generation: Position::new(1), want: Want::Bridge(DesiredBridge { name: format!("b{i}"), mtu: 1500 }) });
        let t = Instant::now(); r.round(&d, false).await.unwrap(); v.push(t.elapsed());
    }
    p(v, "round with one network, one create, 400..600 links");
    let mut v = vec![];
    for _ in 0..200 { let t = Instant::now(); tokio::task::spawn_blocking(|| ()).await.unwrap(); v.push(t.elapsed()); }
    p(v, "spawn_blocking");
    let mut v = vec![];
    for i in 0..200u128 {
        let n = format!("c{i}");
        let t = Instant::now();
        std::hint::black_box(&n);
        // the floor: plain create of a bridge
        k.create_temporary(NetworkId::new(Uuid::from_u128(i + 5000)), &DesiredBridge { name: n, mtu: 1500 }).unwrap();
        v.push(t.elapsed());
    }
    p(v, "kernel.create_temporary (plain create + GETLINK)");
}
#[tokio::test]
async fn whole() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let folder = otherix_testkit::tempdir().unwrap();
    std::fs::write(folder.path().join("credentials"), r#"{"user": "node-1", "password": "x"}"#).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_otherix-agent")).args(["run","--name","node-1","--nats",&server.url()])
        .arg("--credentials").arg(folder.path().join("credentials")).arg("--state").arg(folder.path().join("state")).env("OTHERIX_LOG","warn").spawn().unwrap();
    use futures::StreamExt;
    let mut reports = control.client.subscribe("otherix.req.v1.*.node.report").await.unwrap();
    let (mut v, mut rtt, mut ack) = (vec![], vec![], vec![]);
    for i in 0..201u128 {
        let id = NetworkId::new(Uuid::from_u128(i + 1));
        let t = Instant::now();
        control.decide(created(id, &format!("br{i}"), None)).await;
        ack.push(t.elapsed());
        reports.next().await.unwrap();
        if i > 0 { v.push(t.elapsed()); }
        let t = Instant::now();
        control.client.flush().await.unwrap();
        rtt.push(t.elapsed());
    }
    child.kill().unwrap(); child.wait().unwrap();
    p(v, "publish -> report received"); p(ack, "of which js publish ack"); p(rtt, "nats flush rtt");
}

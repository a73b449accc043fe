//! What a control plane tells of itself: metrics, health and logs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use otherix_schemas::cluster::{ClusterStatusView, GetClusterStatus, ProblemKind, WholeCluster};
use otherix_schemas::id::NodeId;
use otherix_schemas::network::CreateNetwork;
use otherix_schemas::node::{NodeReport, ReportNode, ReportReceipt};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::request::Request;
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_transport::Nats;
use serde_json::Value;
use uuid::Uuid;

use super::daemon::{DEADLINE, OtherixdProcess, call, create, overlay, tool, try_call};
use super::presence::join;

/// The address of its endpoint.
fn endpoint(daemon: &OtherixdProcess) -> String {
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("metrics and health are served over HTTP")).unwrap();
    let address = line.split("address=").nth(1).unwrap().trim();
    format!("http://{address}")
}

/// All samples, by name and labels.
async fn metrics(daemon: &OtherixdProcess) -> BTreeMap<String, f64> {
    let url = format!("{}/metrics", endpoint(daemon));
    let printed = nats_py(include_str!("metrics.py"), &[&url]).await;
    let samples: Vec<(String, BTreeMap<String, String>, f64)> = serde_json::from_str(&printed).unwrap();
    let name = |(name, labels, value): (String, BTreeMap<String, String>, f64)| {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        (if labels.is_empty() { name } else { format!("{name} {}", labels.join(" ")) }, value)
    };
    samples.into_iter().map(name).collect()
}

async fn status(admin: &Nats) -> ClusterStatusView {
    call(admin, Request::of::<GetClusterStatus>(), &WholeCluster {}, None).await.unwrap().data
}

#[tokio::test]
async fn metrics_and_status_tell_what_was_done() {
    let daemon = OtherixdProcess::start_with(&["--metrics", "127.0.0.1:0"]).await;
    let admin = daemon.connect("admin").await;
    let node_id = NodeId::new(Uuid::from_u128(7));
    let node = daemon.node(node_id, "node-7").await;
    join(&node, 7).await;
    let before = metrics(&daemon).await;
    let network = create(&admin, &overlay("net-a")).await;
    create(&admin, &overlay("net-b")).await;
    let refused = try_call::<Value>(&admin, Request::of::<CreateNetwork>(), &overlay("net-a"), None).await;
    assert!(refused.is_err());
    let found = wait_for(DEADLINE, "the stream to have all events", async || {
        let found = metrics(&daemon).await;
        let of = |name: &str| found[&format!("otherix_position of={name}")];
        if of("stream") == of("journal") && of("network") == of("journal") { Ok(found) } else { Err(found) }
    })
    .await;
    let grown = |name: &str| found[name] - before.get(name).copied().unwrap_or_default();
    assert_eq!(grown("otherix_requests_total request=network.create result=ok"), 2.0);
    assert_eq!(grown("otherix_requests_total request=network.create result=conflict"), 1.0);
    assert_eq!(grown("otherix_writer_events_total"), 2.0);
    assert_eq!(grown("otherix_writer_command_seconds_count"), 3.0);
    assert_eq!(grown("otherix_networks state=present"), 2.0);
    assert_eq!(grown("otherix_networks_on_nodes status=pending"), 2.0);
    assert_eq!(found["otherix_nodes state=reachable"], 1.0);
    assert!(found["process_resident_memory_bytes"] > 1e6);

    // The node reports that one has failed.
    let error = "lo is already there".to_owned();
    let failed =
        |id, position| ResourceOutcome::new(ResourceRef::Network(id), position, Outcome::Failed(error.clone()));
    let results = vec![failed(network.id, network.generation)];
    let report = NodeReport { node_id, incarnation: 1, sequence: 1, results };
    let _: ReportReceipt = call(&node, Request::of::<ReportNode>(), &report, None).await.unwrap().data;
    let view = status(&admin).await;
    assert_eq!((view.networks.total, view.networks.failed_on_nodes, view.networks.pending_on_nodes), (2, 1, 1));
    assert_eq!((view.nodes.total, view.nodes.reachable, view.vms.total), (1, 1, 0));
    let [problem] = &view.problems[..] else { panic!("{view:?}") };
    assert_eq!((problem.kind, problem.name.as_deref()), (ProblemKind::NetworkFailed, Some("net-a")));
    assert_eq!((&problem.nodes[..], problem.node_count), (&["node-7".to_owned()][..], 1));
    assert_eq!(problem.detail.as_deref(), Some("lo is already there"));
    assert!(view.projections.iter().all(|model| model.position > Position::ZERO), "{view:?}");
    assert_eq!(metrics(&daemon).await["otherix_networks_on_nodes status=failed"], 1.0);

    // The log has each of them, by name.
    let log = daemon.log();
    let line = |parts: &[&str]| {
        let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
        assert!(log.lines().any(|line| has_all(&line)), "{parts:?}: {log}");
    };
    line(&["INFO otherix::decisions: network.created", "network=\"net-a\"", "by=\"admin\"", " position=", " us="]);
    line(&["INFO otherix::requests: refused", "request=\"network.create\"", "code=\"conflict\"", "by=\"admin\""]);
    line(&["WARN otherix::decisions: failed", "network=\"net-a\"", "node=\"node-7\"", "lo is already there"]);
}

#[tokio::test]
async fn health_is_told_and_unknown_paths_are_not_found() {
    let daemon = OtherixdProcess::start_with(&["--metrics", "127.0.0.1:0"]).await;
    let base = endpoint(&daemon);
    let script = "import sys, urllib.request, urllib.error\n\
        for path in sys.argv[2:]:\n\
        \x20   try:\n\
        \x20       answer = urllib.request.urlopen(sys.argv[1] + path, timeout=10)\n\
        \x20   except urllib.error.HTTPError as error:\n\
        \x20       answer = error\n\
        \x20   print(answer.status, answer.read().decode().strip())";
    let printed = nats_py(script, &[&base, "/healthz", "/readyz", "/"]).await;
    assert_eq!(printed, "200 ok\n200 ready\n404 /metrics, /healthz and /readyz are here\n");
}

#[tokio::test]
async fn logs_are_json_if_wanted() {
    let folder = otherix_testkit::tempdir().unwrap();
    let (_, _, log) = tool(&folder.path().join("none"), &["journal", "verify", "--log-format", "json"]).await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.iter().find(|line| line["level"] == "ERROR").unwrap();
    assert_eq!(last["message"], "otherixd ends");
    assert!(last["error"].is_string() && last["timestamp"].is_string(), "{last}");
}

/// What the alerts and the dashboard name is there, and Prometheus' own tool accepts the alerts.
#[tokio::test]
async fn alerts_and_dashboard_name_metrics_that_exist() {
    let daemon = OtherixdProcess::start_with(&["--metrics", "127.0.0.1:0"]).await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("net-a")).await;
    let own = metrics(&daemon).await;
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = project.join("ops/observability");
    let agent = std::fs::read_to_string(project.join("agent/src/agent/metrics.rs")).unwrap();
    let (alerts, dashboard) = (folder.join("alerts.yml"), folder.join("dashboard.json"));
    let text = std::fs::read_to_string(alerts).unwrap() + &std::fs::read_to_string(&dashboard).unwrap();
    let _: Value = serde_json::from_str(&std::fs::read_to_string(dashboard).unwrap()).unwrap();
    let words = text.split(|byte: char| !byte.is_ascii_alphanumeric() && byte != '_');
    let mut count = 0;
    for word in words.filter(|word| word.starts_with("otherix_") || word.starts_with("process_")) {
        // Units and totals are added to the names of the declarations.
        let base = ["_bucket", "_total", "_seconds"].iter().fold(word, |word, end| word.trim_end_matches(end));
        let names = own.keys().filter_map(|name| name.split(' ').next());
        let is_own = names.into_iter().any(|name| name == word || name.strip_suffix("_count") == Some(word));
        assert!(is_own || agent.contains(&format!("\"{base}\"")), "{word}");
        count += 1;
    }
    assert!(count > 30);
    for arguments in [["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]] {
        assert_promtool(&folder, &arguments);
    }
    assert_promtool(&folder, &["test", "rules", "alerts_test.yml"]);
}

fn assert_promtool(folder: &Path, arguments: &[&str]) {
    let program = folder.join("../../.tools/bin/promtool");
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
}

//! Many VMs on one node of a lab: the time until every NIC's tap is ready, the agent's memory, and its processor time
//! when idle.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use otherix_testkit::netns;
use serde_json::Value;

use crate::BenchError;
use crate::lab::BenchLab;
use crate::processor::processor_time;
use crate::report::{report_progress, target_result};
use crate::rounds::LabClient;
use crate::thread::BenchThread;

/// Requests in flight.
const IN_FLIGHT: usize = 32;

/// How long the idle agent is observed.
const IDLE: Duration = Duration::from_secs(10);

/// Pause before that, for remaining work to complete.
const SETTLE: Duration = Duration::from_secs(2);

/// Targets: the agent's memory in MiB, and its processor time when idle, in percent of a core.
const RSS_MIB: f64 = 40.0;
const IDLE_PERCENT: f64 = 0.5;

struct VmMeasurements {
    acknowledged: Duration,
    ready: Duration,
    taps: usize,
}

/// Creates a lab of one node with this many VMs, and returns a table and a line of figures.
pub(crate) async fn run(bin_dir: &Path, name: &str, count: u32) -> Result<String, BenchError> {
    report_progress("bench: creating a lab of one node");
    let lab = BenchLab::up(bin_dir, name, 1).await?;
    let agent = lab.agent()?;
    let before = memory(agent)?;
    let access = lab.access();
    report_progress(&format!("bench: creating {count} VMs"));
    let mut client = BenchThread::start("client", move || {
        access.enter()?;
        Ok(async move {
            let mut client = LabClient::new(&access.endpoint()?, 1).await?;
            let network = client.network().await?;
            let begin = Instant::now();
            let requests = stream::iter(0..count).map(|number| client.vm(number, network));
            let nics: BTreeSet<_> = requests.buffer_unordered(IN_FLIGHT).try_collect().await?;
            let acknowledged = begin.elapsed();
            client.ready(nics).await?;
            let ready = begin.elapsed();
            access.enter_node()?;
            let links = netns::ip_json(&["link", "show", "type", "tun"]);
            let flags = |link: &Value| link.get("flags").and_then(Value::as_array).cloned().unwrap_or_default();
            // The mesh device is one of this type, too, but no bridge has it as a port.
            let is_up = |link: &&Value| flags(link).contains(&"UP".into()) && link.get("master").is_some();
            let taps = links.as_array().map_or(0, |links| links.iter().filter(is_up).count());
            Ok(VmMeasurements { acknowledged, ready, taps })
        })
    })?;
    let VmMeasurements { acknowledged, ready, taps } = client.result().await?;
    if u32::try_from(taps)? != count {
        return Err(format!("{taps} taps are up, not {count}").into());
    }
    tokio::time::sleep(SETTLE).await;
    let busy = processor_time(agent)?;
    tokio::time::sleep(IDLE).await;
    let idle = processor_time(agent)? - busy;
    let after = memory(agent)?;
    let percent = idle * 100.0 / IDLE.as_secs_f64();
    Ok([
        format!("{count} VMs on one node, with a NIC each on one managed bridge"),
        format!("{:<52}{:>10.0} ms", "all requests acknowledged (durable)", acknowledged.as_secs_f64() * 1000.0),
        format!("{:<52}{:>10.0} ms", "all taps reported `ready`", ready.as_secs_f64() * 1000.0),
        format!("{:<52}{:>10.2} s", "processor time of the agent until then", busy),
        format!("{:<52}{:>10.1} MiB", "agent's memory before (RSS)", before.0),
        format!("{:<52}{:>10.1} MiB", "  with the VMs (RSS)", after.0),
        format!("{:<52}{:>10.1} MiB", "  peak (HWM)", after.1),
        String::new(),
        format!(
            "all ready in {:.0} ms; agent {:.1} MiB (at most {RSS_MIB}: {}), {percent:.2} % of a core when idle (at \
             most {IDLE_PERCENT}: {})",
            ready.as_secs_f64() * 1000.0,
            after.1,
            target_result(after.1 <= RSS_MIB),
            target_result(percent <= IDLE_PERCENT),
        ),
    ]
    .join("\n"))
}

/// Resident memory of a process and its peak, in MiB.
fn memory(pid: u32) -> Result<(f64, f64), BenchError> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<f64, BenchError> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no memory in the process status")?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    };
    Ok((field("VmRSS")?, field("VmHWM")?))
}

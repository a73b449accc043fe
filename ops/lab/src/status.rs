//! The status of a lab, and the environment of its clients.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::args::OutputFormat;
use crate::error::LabError;
use crate::guest;
use crate::lab::{Lab, OpenLab};
use crate::namespace::{self, UnderlayLink};
use crate::output::print;
use crate::process::{self, LabProcess};
use crate::service::FORWARD;

/// A lab as it is now.
#[derive(Debug, Serialize)]
struct LabStatus {
    lab: String,
    url: String,
    folder: String,
    /// Address of the host behind the nodes' default route.
    outside: &'static str,
    processes: Vec<ProcessRow>,
}

#[derive(Debug, Serialize)]
struct ProcessRow {
    name: String,
    namespace: String,
    /// `running`, `joined`, `stopped`; `held`: nats, stopped until it is started.
    state: &'static str,
    pid: Option<i32>,
    /// A node's link to the underlay: `up`, `partitioned`, `missing`.
    link: Option<&'static str>,
}

/// The first administrator.
const USER: &str = "admin";

/// Prints the exports that point `otherix` and other NATS clients at the lab.
pub(crate) fn environment(lab: &Lab) -> Result<(), LabError> {
    let lab = lab.open()?;
    let credentials = quoted(&lab.lab.credentials(USER));
    let (ca, bin_dir) = (quoted(&lab.lab.ca()), quoted(&lab.description.bin_dir));
    let (url, name) = (lab.url(), &lab.lab.name);
    print(&format!(
        "export OTHERIX_NATS_URL={url}\nexport NATS_URL={url}\nexport OTHERIX_CREDENTIALS={credentials}\n\
         export OTHERIX_CA={ca}\nexport NATS_CA={ca}\n\
         export NATS_CREDS={credentials}\n\
         export OTHERIX_LAB={name}\nexport PATH={bin_dir}:\"$PATH\"\n\
         # In a shell: eval \"$(otherix-lab env)\". The variables NATS_* are for other NATS clients."
    ))
}

/// Prints the status.
pub(crate) fn status(lab: &Lab, output: OutputFormat) -> Result<(), LabError> {
    let lab = lab.open()?;
    let status = observe(&lab)?;
    match output {
        OutputFormat::Json => print(&serde_json::json!(status).to_string()),
        OutputFormat::Text => print(&table(&status)),
    }
}

fn observe(lab: &OpenLab) -> Result<LabStatus, LabError> {
    let underlay = lab.lab.underlay();
    let row =
        |name: &str, namespace: &str, process: Option<LabProcess>, up: &'static str, down: &'static str| ProcessRow {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            state: if process.is_some() { up } else { down },
            pid: process.map(|process| process.pid),
            link: None,
        };
    let held = if lab.lab.hold_file().exists() { "held" } else { "stopped" };
    let mut processes = vec![
        row("otherixd", &underlay, lab.otherixd()?, "running", "stopped"),
        row("nats", &underlay, lab.nats()?, "running", held),
        row(FORWARD, &underlay, process::running(&lab.lab, FORWARD)?, "running", "stopped"),
    ];
    let links = if namespace::exists(&underlay) { namespace::links(&lab.lab)? } else { BTreeMap::new() };
    for node in 1..=lab.description.nodes {
        let name = format!("node-{node}");
        let up = if lab.lab.joined_file(node).exists() { "joined" } else { "running" };
        let row = row(&name, &lab.lab.node(node), process::running(&lab.lab, &name)?, up, "stopped");
        let link = links.get(&node).copied().unwrap_or(UnderlayLink::Missing);
        processes.push(ProcessRow { link: Some(link.as_str()), ..row });
    }
    for guest in guest::plugged_in(&lab.lab) {
        let relay = process::running(&lab.lab, &guest.to_string())?;
        processes.push(row(&guest.to_string(), &lab.lab.guest(&guest), relay, "running", "stopped"));
    }
    let folder = lab.lab.folder().display().to_string();
    Ok(LabStatus { lab: lab.lab.name.to_string(), url: lab.url(), folder, outside: namespace::OUTSIDE, processes })
}

fn table(status: &LabStatus) -> String {
    let LabStatus { lab, url, folder, outside, processes } = status;
    let mut lines = vec![
        format!("lab {lab}: {url}, {outside} outside, logs in {folder}/logs"),
        format!("{:<10} {:<8} {:>8}  {:<12} {}", "NAME", "STATE", "PID", "LINK", "NAMESPACE"),
    ];
    for ProcessRow { name, namespace, state, pid, link } in processes {
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let link = link.unwrap_or("-");
        lines.push(format!("{name:<10} {state:<8} {pid:>8}  {link:<12} {namespace}"));
    }
    lines.join("\n")
}

/// Quotes a path for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

//! Network namespaces and the links between them, through `ip` of iproute2. Every operation is idempotent.
//!
//! Each node's link ends in a port of the underlay's bridge. A node is cut off by moving that port to a bridge that is
//! never up: it forwards nothing, but its ports keep their carrier, so both ends see the link as up.
//!
//! Both ends of a link are created inside the lab's namespaces; the caller's namespace never sees them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;

use crate::error::LabError;
use crate::lab::Lab;
use crate::process::LabProcess;
use crate::program;
use crate::wait::wait_for;

/// Time-out for the processes of a namespace to end after SIGKILL: a busy kernel delays it.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);

/// The underlay's bridge, in its namespace.
const BRIDGE: &str = "underlay";

/// The bridge of the ports that are cut off, in the same namespace.
const CUT_OFF: &str = "cut";

/// The control plane's address; the underlay is its /24.
pub(crate) const CONTROL: &str = "10.99.0.1";

/// The address of the host outside on the underlay: the nodes' gateway to everything else.
const GATEWAY: &str = "10.99.0.2";

/// The address of the host outside, reachable through the nodes' default route only (a documentation address, RFC
/// 5737). Its only route leads to the underlay, so replies never reach a guest whose address is not translated by NAT.
pub(crate) const OUTSIDE: &str = "203.0.113.1";

/// A node's address on the underlay.
fn node_address(node: u32) -> String {
    format!("10.99.0.{}", node + 10)
}

/// MAC addresses are fixed, so that neighbour caches stay valid when a link is recreated. By default the bridge's MAC
/// would change with its ports.
const CONTROL_MAC: &str = "02:00:0a:63:00:01";
const GATEWAY_MAC: &str = "02:00:0a:63:00:02";

fn node_mac(node: u32) -> String {
    format!("02:00:0a:63:00:{:02x}", node + 10)
}

/// The `ip` command that creates a veth pair: a port in the underlay's namespace, and `eth0` in `namespace`.
fn veth_command(port: &str, mac: &str, namespace: &str) -> String {
    format!("link add name {port} type veth peer name eth0 address {mac} netns {namespace}\n")
}

/// The state of a node's link to the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnderlayLink {
    Up,
    Partitioned,
    Missing,
}

impl UnderlayLink {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Partitioned => "partitioned",
            Self::Missing => "missing",
        }
    }
}

/// The fields of `ip -j link` that are used.
#[derive(Debug, Deserialize)]
struct IpLink {
    ifname: String,
    master: Option<String>,
    flags: Vec<String>,
}

fn path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

pub(crate) fn exists(namespace: &str) -> bool {
    path(namespace).exists()
}

/// Creates the underlay's namespace, its bridge and the control plane's address.
pub(crate) fn create_underlay(lab: &Lab) -> Result<(), LabError> {
    let namespace = lab.underlay();
    create(&namespace)?;
    let mut steps =
        format!("link set dev lo up\naddress replace {CONTROL}/24 dev {BRIDGE}\nlink set dev {BRIDGE} up\n");
    if !has_link(&namespace, BRIDGE)? {
        steps.insert_str(0, &format!("link add name {BRIDGE} address {CONTROL_MAC} type bridge\n"));
    }
    batch(&namespace, &steps)
}

/// Creates the namespace of the host outside and its link to the underlay.
pub(crate) fn create_outside(lab: &Lab) -> Result<(), LabError> {
    let namespace = lab.outside();
    create(&namespace)?;
    let mut steps = format!("link set dev outside master {BRIDGE} up\n");
    if !has_link(&namespace, "eth0")? {
        steps.insert_str(0, &veth_command("outside", GATEWAY_MAC, &namespace));
    }
    batch(&lab.underlay(), &steps)?;
    batch(
        &namespace,
        &format!(
            "link set dev lo up\naddress replace {OUTSIDE}/32 dev lo\n\
             address replace {GATEWAY}/24 dev eth0\nlink set dev eth0 up\n"
        ),
    )
}

/// Creates a node's namespace, its link to the underlay and its default route. A partition persists.
pub(crate) fn create_node(lab: &Lab, node: u32) -> Result<(), LabError> {
    let (underlay, namespace) = (lab.underlay(), lab.node(node));
    create(&namespace)?;
    let port = port(node);
    let steps = if !has_link(&namespace, "eth0")? {
        veth_command(&port, &node_mac(node), &namespace) + &format!("link set dev {port} master {BRIDGE} up\n")
    } else if links(lab)?.get(&node) == Some(&UnderlayLink::Partitioned) {
        format!("link set dev {port} up\n")
    } else {
        format!("link set dev {port} master {BRIDGE} up\n")
    };
    batch(&underlay, &steps)?;
    let address = node_address(node);
    batch(
        &namespace,
        &format!(
            "link set dev lo up\naddress replace {address}/24 dev eth0\nlink set dev eth0 up\n\
             route replace default via {GATEWAY}\n"
        ),
    )?;
    disable_bridge_filter(&namespace)
}

/// Deletes a node's link synchronously: the kernel deletes the links of a removed namespace only later.
pub(crate) fn delete_node_link(lab: &Lab, node: u32) -> Result<(), LabError> {
    let (underlay, port) = (lab.underlay(), port(node));
    if !has_link(&underlay, &port)? {
        return Ok(());
    }
    match batch(&underlay, &format!("link delete dev {port}\n")) {
        // The kernel has deleted it in the meantime.
        Err(_) if !has_link(&underlay, &port)? => Ok(()),
        removed => removed,
    }
}

/// Exempts bridged frames of a node from its IPv4 packet filter; with `br_netfilter` the kernel filters them by
/// default.
fn disable_bridge_filter(namespace: &str) -> Result<(), LabError> {
    const SYSCTL: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    // The sysctl is that of the calling thread's namespace.
    let write = || {
        enter(namespace)?;
        match fs::write(SYSCTL, "0") {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LabError::File { attempt: "write", path: SYSCTL.into(), source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    };
    std::thread::scope(|scope| scope.spawn(write).join()).unwrap_or(Ok(()))
}

/// The nodes' links to the underlay.
pub(crate) fn links(lab: &Lab) -> Result<BTreeMap<u32, UnderlayLink>, LabError> {
    let link = |device: IpLink| {
        let node = device.ifname.strip_prefix("node-")?.parse().ok()?;
        match device.master.as_deref() {
            Some(BRIDGE) => Some((node, UnderlayLink::Up)),
            Some(CUT_OFF) => Some((node, UnderlayLink::Partitioned)),
            Some(_) | None => Some((node, UnderlayLink::Missing)),
        }
    };
    Ok(ip_links(&lab.underlay())?.into_iter().filter_map(link).collect())
}

/// Partitions a node.
pub(crate) fn cut_off(lab: &Lab, node: u32) -> Result<(), LabError> {
    let namespace = lab.underlay();
    let mut steps = format!("link set dev {} master {CUT_OFF}\n", port(node));
    if !has_link(&namespace, CUT_OFF)? {
        steps.insert_str(0, &format!("link add name {CUT_OFF} type bridge\n"));
    }
    batch(&namespace, &steps)
}

/// Heals a partition.
pub(crate) fn heal(lab: &Lab, node: u32) -> Result<(), LabError> {
    batch(&lab.underlay(), &format!("link set dev {} master {BRIDGE}\n", port(node)))
}

/// The end of a node's link in the underlay.
fn port(node: u32) -> String {
    format!("node-{node}")
}

/// Lists the lab's namespaces.
pub(crate) fn list(lab: &Lab) -> Result<Vec<String>, LabError> {
    let folder = Path::new("/run/netns");
    let failed = |source| LabError::File { attempt: "read the folder", path: folder.to_owned(), source };
    let mut names = Vec::new();
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                names.extend(entry.map_err(failed)?.file_name().into_string().ok().filter(|name| lab.owns(name)));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    names.sort();
    Ok(names)
}

/// Removes a namespace's name; the kernel frees the namespace when its last process has ended.
pub(crate) fn remove(namespace: &str) -> Result<(), LabError> {
    run(program::ip().args(["netns", "delete", namespace])).map(drop)
}

/// Kills processes in a namespace until none is left.
pub(crate) fn kill_processes(namespace: &str) -> Result<(), LabError> {
    wait_for(&format!("the end of all processes in {namespace}"), KILL_TIMEOUT, || {
        // This fails for a name without a namespace, which has no processes.
        let pids = processes(namespace).unwrap_or_default();
        let processes: Vec<LabProcess> = pids.into_iter().filter_map(LabProcess::of).collect();
        for process in &processes {
            if contains(namespace, process.pid) {
                process.signal(namespace, Signal::KILL)?;
            }
        }
        Ok(processes.is_empty())
    })
}

/// The processes in a namespace.
fn processes(namespace: &str) -> Result<Vec<i32>, LabError> {
    let output = run(program::ip().args(["netns", "pids", namespace]))?;
    Ok(output.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// True if the process is in the namespace.
fn contains(namespace: &str, pid: i32) -> bool {
    let inode = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let current = inode(Path::new(&format!("/proc/{pid}/ns/net")));
    current.is_some() && current == inode(&path(namespace))
}

/// Executes `command` in a namespace in place of this process; returns only on failure.
pub(crate) fn exec(namespace: &str, command: &[OsString]) -> Result<(), LabError> {
    if !exists(namespace) {
        return Err(LabError::NoNamespace(namespace.to_owned()));
    }
    let source = program::ip().args(["netns", "exec", namespace]).args(command).exec();
    Err(LabError::Run { command: "ip netns exec".to_owned(), source })
}

/// Where `wg` looks for sockets of userspace devices.
const WG_SOCKETS: &str = "/run/wireguard";

/// Executes `command` on a node, with the node's socket folder mounted where `wg` looks.
pub(crate) fn exec_on_node(namespace: &str, sockets: &Path, command: &[OsString]) -> Result<(), LabError> {
    // The mount is private to this command and its children.
    const MOUNT_AND_EXEC: &str = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;
    if !sockets.is_dir() {
        return exec(namespace, command);
    }
    fs::create_dir_all(WG_SOCKETS).map_err(|source| LabError::File {
        attempt: "create the folder",
        path: WG_SOCKETS.into(),
        source,
    })?;
    let mut all: Vec<OsString> =
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT_AND_EXEC, "sh"].map(Into::into).into();
    all.extend([sockets.into(), WG_SOCKETS.into()]);
    all.extend(command.iter().cloned());
    exec(namespace, &all)
}

/// Removes the mount point, unless it is in use.
pub(crate) fn remove_socket_folder() {
    // It may not exist, or contain sockets of this machine's own devices.
    let _missing_or_not_empty = fs::remove_dir(WG_SOCKETS);
}

/// Moves the calling thread into a namespace; threads that it starts later inherit it; open sockets do not move.
pub(crate) fn enter(namespace: &str) -> Result<(), LabError> {
    let failed = |source| LabError::Enter { namespace: namespace.to_owned(), source };
    let file = File::open(path(namespace)).map_err(failed)?;
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(file.as_fd(), network).map_err(|error| failed(error.into()))
}

/// Creates a namespace unless it exists.
pub(crate) fn create(namespace: &str) -> Result<(), LabError> {
    if exists(namespace) {
        // An interrupted creation leaves a name without a namespace.
        if program::ip().args(["-n", namespace, "link", "show", "lo"]).output().is_ok_and(|out| out.status.success()) {
            return Ok(());
        }
        remove(namespace)?;
    }
    run(program::ip().args(["netns", "add", namespace])).map(drop)
}

/// True if the namespace has a device of that name.
pub(crate) fn has_link(namespace: &str, link: &str) -> Result<bool, LabError> {
    Ok(ip_links(namespace)?.iter().any(|device| device.ifname == link))
}

/// True if the device of that name has a carrier.
pub(crate) fn has_carrier(namespace: &str, link: &str) -> Result<bool, LabError> {
    let has_carrier = |device: &IpLink| device.ifname == link && device.flags.iter().any(|flag| flag == "LOWER_UP");
    Ok(ip_links(namespace)?.iter().any(has_carrier))
}

fn ip_links(namespace: &str) -> Result<Vec<IpLink>, LabError> {
    let output = run(program::ip().args(["-n", namespace, "-j", "link", "show"]))?;
    serde_json::from_str(&output).map_err(|error| LabError::Failed {
        command: format!("ip -n {namespace} -j link show"),
        output: error.to_string(),
    })
}

/// Runs `steps`, one `ip` command per line, in a namespace.
pub(crate) fn batch(namespace: &str, steps: &str) -> Result<(), LabError> {
    let command = format!("ip -n {namespace} -batch -");
    let failed = |source| LabError::Run { command: command.clone(), source };
    let mut child = program::ip()
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(steps.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Failed { command, output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

fn run(command: &mut Command) -> Result<String, LabError> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.output().map_err(|source| LabError::Run { command: shown.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(LabError::Failed { command: shown, output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

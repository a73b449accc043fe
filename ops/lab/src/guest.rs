//! Guests: each is a network namespace with an `eth0`, connected to a VM's tap by a relay process (`relay.rs`). The
//! VM's properties are queried from the control plane.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::args::{Cidr, GuestAction};
use crate::error::LabError;
use crate::lab::{Lab, OpenLab};
use crate::namespace;
use crate::output::report_progress;
use crate::process;
use crate::program;
use crate::relay::GUEST_TAP;
use crate::service::otherix;
use crate::target::{GuestName, LabService, NodeNumber};
use crate::wait::wait_for;

/// Time-out for a relay to attach to both ends.
const PLUG_IN_TIMEOUT: Duration = Duration::from_secs(20);

/// The part of `otherix vm get -o json` that is used.
#[derive(Debug, Deserialize)]
struct VmJson {
    node_name: String,
    nic: Option<NicJson>,
}

#[derive(Debug, Deserialize)]
struct NicJson {
    network_id: String,
    mac: String,
    tap: String,
}

/// The part of `otherix network get -o json` that is used.
#[derive(Debug, Deserialize)]
struct NetworkJson {
    mtu: u32,
    gateway: Option<Ipv4Addr>,
}

/// A VM's NIC, and the node that it is on.
#[derive(Debug)]
struct GuestNic {
    node: u32,
    tap: String,
    mac: String,
    mtu: u32,
    gateway: Option<Ipv4Addr>,
}

/// The guests of a lab, including those whose relay has ended.
pub(crate) fn plugged_in(lab: &Lab) -> Vec<GuestName> {
    let mut names = process::names(lab);
    names.sort();
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Plugs a guest in or unplugs it.
pub(crate) fn change(lab: &OpenLab, guest: &GuestName, action: &GuestAction) -> Result<(), LabError> {
    let GuestAction { ip, gateway, remove: _ } = *action;
    let Some(ip) = ip else {
        let existed = namespace::exists(&lab.lab.guest(guest));
        unplug(&lab.lab, guest)?;
        report_progress(&format!("{guest} {}", if existed { "is unplugged" } else { "is not plugged in" }));
        return Ok(());
    };
    let existed = namespace::exists(&lab.lab.guest(guest));
    plug(lab, guest, ip, gateway).inspect_err(|_| {
        // A guest that existed before may run processes of the user.
        if !existed && let Err(error) = unplug(&lab.lab, guest) {
            report_progress(&format!("cannot remove the incomplete {guest}: {error}"));
        }
    })
}

fn plug(lab: &OpenLab, guest: &GuestName, ip: Cidr, gateway: Option<Ipv4Addr>) -> Result<(), LabError> {
    let nic = nic(lab, guest.vm())?;
    end_relay(&lab.lab, guest)?;
    configure(&lab.lab.guest(guest), &nic, ip, gateway.or(nic.gateway))?;
    start_relay(&lab.lab, guest, &nic)?;
    let GuestNic { node, tap, mac, .. } = nic;
    report_progress(&format!("{guest} is plugged into {tap} on node-{node}: {ip}, {mac}"));
    Ok(())
}

/// Queries the control plane.
fn nic(lab: &OpenLab, vm: &str) -> Result<GuestNic, LabError> {
    let VmJson { node_name, nic } = query(lab, &["vm", "get", vm])?;
    let NicJson { network_id, mac, tap } = nic.ok_or_else(|| LabError::NoNic(vm.to_owned()))?;
    let NetworkJson { mtu, gateway } = query(lab, &["network", "get", &network_id])?;
    let node = node_name.parse().ok().filter(|NodeNumber(node)| lab.check(LabService::Node(*node)).is_ok());
    let NodeNumber(node) = node.ok_or_else(|| LabError::NotHere { vm: vm.to_owned(), node: node_name })?;
    Ok(GuestNic { node, tap, mac, mtu, gateway })
}

/// Creates the guest's namespace and its `eth0`, or reconfigures them.
fn configure(namespace: &str, nic: &GuestNic, ip: Cidr, gateway: Option<Ipv4Addr>) -> Result<(), LabError> {
    namespace::create(namespace)?;
    let GuestNic { mac, mtu, .. } = nic;
    // Taking it down first removes the routes of an earlier address.
    let mut steps = format!(
        "link set dev lo up\nlink set dev {GUEST_TAP} down\naddress flush dev {GUEST_TAP}\n\
         link set dev {GUEST_TAP} address {mac} mtu {mtu}\naddress add {ip} dev {GUEST_TAP}\n\
         link set dev {GUEST_TAP} up\n"
    );
    if !namespace::has_link(namespace, GUEST_TAP)? {
        steps.insert_str(0, &format!("tuntap add dev {GUEST_TAP} mode tap\n"));
    }
    if let Some(gateway) = gateway {
        steps.push_str(&format!("route replace default via {gateway}\n"));
    }
    namespace::batch(namespace, &steps)
}

/// Returns when both ends are attached.
fn start_relay(lab: &Lab, guest: &GuestName, nic: &GuestNic) -> Result<(), LabError> {
    let (name, namespace) = (guest.to_string(), lab.guest(guest));
    let mut relay = program::this_program()?;
    relay.arg("relay").args([&lab.node(nic.node), &nic.tap, &namespace]);
    process::start(lab, &name, &relay, Stdio::null())?;
    wait_for(&format!("{guest} to be plugged in"), PLUG_IN_TIMEOUT, || {
        if process::running(lab, &name)?.is_none() {
            return Err(process::ended(lab, &name));
        }
        namespace::has_carrier(&namespace, GUEST_TAP)
    })
}

/// Ends the relay, kills the guest's processes and removes the guest, if it exists.
fn unplug(lab: &Lab, guest: &GuestName) -> Result<(), LabError> {
    end_relay(lab, guest)?;
    let namespace = lab.guest(guest);
    if namespace::exists(&namespace) {
        namespace::kill_processes(&namespace)?;
        namespace::remove(&namespace)?;
    }
    process::remove_record(lab, &guest.to_string())
}

fn end_relay(lab: &Lab, guest: &GuestName) -> Result<(), LabError> {
    let name = guest.to_string();
    process::running(lab, &name)?.map_or(Ok(()), |relay| relay.end(&name, Signal::KILL))
}

/// Runs `otherix` and parses its JSON output.
fn query<T: DeserializeOwned>(lab: &OpenLab, arguments: &[&str]) -> Result<T, LabError> {
    let command = format!("otherix {}", arguments.join(" "));
    let output = otherix(lab).args(arguments).args(["-o", "json"]).output();
    let output = output.map_err(|source| LabError::Run { command: command.clone(), source })?;
    if !output.status.success() {
        return Err(LabError::Failed { command, output: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    serde_json::from_slice(&output.stdout).map_err(|error| LabError::Failed { command, output: error.to_string() })
}

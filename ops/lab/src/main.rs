//! `otherix-lab`: a control plane and several nodes on one machine, each in a separate network namespace. Wiring
//! only.
//!
//! In the caller's namespace it creates only one listening port on loopback; everything else is in namespaces
//! `otx-<lab>-…` and below `/var/lib/otherix-lab/<lab>`. `down` removes all of it.

mod args;
mod down;
mod error;
mod forward;
mod guest;
mod join;
mod lab;
mod lock;
mod machines;
mod name;
mod namespace;
mod output;
mod partition;
mod process;
mod program;
mod reboot;
mod relay;
mod service;
mod status;
mod target;
mod up;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{LabArgs, LabCommand};
use crate::error::LabError;
use crate::lab::Lab;
use crate::lock::LabLock;
use crate::target::LabNamespace;

fn main() -> ExitCode {
    let LabArgs { lab, command } = LabArgs::parse();
    match run(&Lab::new(lab), command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(lab: &Lab, command: LabCommand) -> Result<(), LabError> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    match command {
        LabCommand::Up(options) => up::up(lab, &options),
        LabCommand::Env => status::environment(lab),
        LabCommand::Exec { target, command } => exec(lab, &target, &command),
        LabCommand::Kill { target } => service::kill(&lab.open()?, target),
        LabCommand::Stop { target } => service::stop(&lab.open()?, target),
        LabCommand::Start { target } => {
            let lock = LabLock::of_existing(lab)?;
            service::start(&lab.open()?, target, lock)
        }
        LabCommand::Partition { nodes } => {
            let _lock = LabLock::of_existing(lab)?;
            partition::partition(&lab.open()?, &nodes)
        }
        LabCommand::Heal { nodes } => {
            let _lock = LabLock::of_existing(lab)?;
            partition::heal(&lab.open()?, &nodes)
        }
        LabCommand::Reboot { node } => {
            let lock = LabLock::of_existing(lab)?;
            reboot::reboot(&lab.open()?, node, lock)
        }
        LabCommand::Guest { name, action } => {
            let _lock = LabLock::of_existing(lab)?;
            guest::change(&lab.open()?, &name, &action)
        }
        LabCommand::Status { output } => status::status(lab, output),
        LabCommand::Down => down::down(lab),
        LabCommand::Forward { namespace } => forward::serve(&namespace),
        LabCommand::Relay(ends) => relay::serve(&ends),
        LabCommand::Node { node } => join::run_node(&lab.open()?, node),
    }
}

fn exec(lab: &Lab, target: &LabNamespace, command: &[OsString]) -> Result<(), LabError> {
    let namespace = lab.namespace(target);
    match target {
        LabNamespace::Guest(guest) if !namespace::exists(&namespace) => Err(LabError::NoGuest(guest.to_string())),
        LabNamespace::Node(node) => namespace::exec_on_node(&namespace, &lab.mesh_sockets(*node), command),
        LabNamespace::Guest(_) | LabNamespace::Outside | LabNamespace::Underlay => namespace::exec(&namespace, command),
    }
}

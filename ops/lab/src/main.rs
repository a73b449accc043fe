//! `otherix-lab`: a control plane and several nodes on one machine, each in a network namespace of its own. Wiring
//! only.
//!
//! In the namespace it is called from it creates one listening port on loopback and nothing else; the rest is in
//! namespaces `otx-<lab>-…` and below `/var/lib/otherix-lab/<lab>`. `down` removes all of it.

mod args;
mod down;
mod error;
mod forward;
mod guest;
mod lab;
mod lock;
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

use crate::args::{Args, Command};
use crate::error::LabError;
use crate::lab::Lab;
use crate::lock::Lock;
use crate::target::Place;

fn main() -> ExitCode {
    let Args { lab, command } = Args::parse();
    match run(&Lab::new(lab), command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(lab: &Lab, command: Command) -> Result<(), LabError> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    match command {
        Command::Up(options) => up::up(lab, &options),
        Command::Env => status::environment(lab),
        Command::Exec { target, command } => exec(lab, &target, &command),
        Command::Kill { target } => service::kill(&lab.opened()?, target),
        Command::Stop { target } => service::stop(&lab.opened()?, target),
        Command::Start { target } => {
            let changing = Lock::of_existing(lab)?;
            service::start(&lab.opened()?, target, changing)
        }
        Command::Partition { nodes } => {
            let _changing = Lock::of_existing(lab)?;
            partition::partition(&lab.opened()?, &nodes)
        }
        Command::Heal { nodes } => {
            let _changing = Lock::of_existing(lab)?;
            partition::heal(&lab.opened()?, &nodes)
        }
        Command::Reboot { node } => {
            let changing = Lock::of_existing(lab)?;
            reboot::reboot(&lab.opened()?, node, changing)
        }
        Command::Guest { name, action } => {
            let _changing = Lock::of_existing(lab)?;
            guest::change(&lab.opened()?, &name, &action)
        }
        Command::Status { output } => status::status(lab, output),
        Command::Down => down::down(lab),
        Command::Forward { namespace } => forward::serve(&namespace),
        Command::Relay(ends) => relay::serve(&ends),
    }
}

fn exec(lab: &Lab, place: &Place, command: &[OsString]) -> Result<(), LabError> {
    let namespace = lab.namespace(place);
    match place {
        Place::Guest(guest) if !namespace::exists(&namespace) => Err(LabError::NoGuest(guest.to_string())),
        Place::Node(node) => namespace::exec_on_node(&namespace, &lab.mesh_sockets(*node), command),
        Place::Guest(_) | Place::Outside | Place::Underlay => namespace::exec(&namespace, command),
    }
}

//! The program `otherix-vm-launch`: becomes the QEMU process of a VM. Started by the agent, never by hand.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        let _closed = writeln!(std::io::stderr(), "usage: otherix-vm-launch FOLDER");
        return ExitCode::FAILURE;
    };
    let error = otherix_vm::launch::launch(Path::new(&folder));
    // The agent reads it from the VM's log.
    let _closed = writeln!(std::io::stderr(), "otherix-vm-launch: {}", otherix_vm::launch::with_causes(&error));
    ExitCode::FAILURE
}

//! QEMU's command line: a function of the spec and of the numbers of open descriptors. QEMU is given no path, except to
//! its own firmware: disks, logs, sockets and the tap are descriptors.

use serde_json::{Value, json};

use crate::spec::{Accelerator, ImageFormat, LaunchSpec, NicSpec};

/// How much memory TCG may use for translated code, in MiB. Its default is 1 GiB.
pub const TCG_BUFFER_MIB: u32 = 256;

/// What QEMU may not call: what its build deems obsolete, setuid and the like, fork and exec, changes of its resources.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Numbers of the descriptors that the process inherits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    pub disk: i32,
    pub base: i32,
    pub seed: Option<i32>,
    pub tap: Option<i32>,
    /// Listening socket of the control protocol.
    pub qmp: i32,
    /// Listening socket of the serial console.
    pub console: i32,
    /// What the guest writes to the console is appended to it.
    pub console_log: i32,
}

/// A set of descriptors is named by its number on the command line (`/dev/fdset/N`).
#[derive(Debug, Clone, Copy)]
enum FdSet {
    Base = 1,
    Disk = 2,
    Seed = 3,
    ConsoleLog = 4,
}

impl FdSet {
    fn path(self) -> String {
        format!("/dev/fdset/{}", self as u32)
    }
}

/// Returns the arguments, without the program's name.
#[must_use]
pub fn arguments(spec: &LaunchSpec, descriptors: &Descriptors) -> Vec<String> {
    let mut line = Line(Vec::new());
    machine(&mut line, spec);
    disks(&mut line, spec, descriptors);
    if let (Some(nic), Some(tap)) = (&spec.nic, descriptors.tap) {
        network(&mut line, nic, tap);
    }
    line.option("-device", "virtio-rng-pci");
    // Tells the host of a panic of the guest's kernel.
    line.option("-device", "pvpanic");
    line.option("-chardev", format!("socket,id=qmp,fd={},server=on,wait=off", descriptors.qmp));
    line.option("-mon", "chardev=qmp,mode=control");
    line.descriptor(descriptors.console_log, FdSet::ConsoleLog);
    let console = format!("socket,id=console,fd={},server=on,wait=off", descriptors.console);
    line.option("-chardev", format!("{console},logfile={},logappend=on", FdSet::ConsoleLog.path()));
    line.option("-serial", "chardev:console");
    line.0
}

struct Line(Vec<String>);

impl Line {
    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.0.extend([name.to_owned(), value.into()]);
    }

    fn descriptor(&mut self, descriptor: i32, set: FdSet) {
        self.option("-add-fd", format!("fd={descriptor},set={}", set as u32));
    }

    fn block(&mut self, node: &Value) {
        self.option("-blockdev", node.to_string());
    }
}

fn machine(line: &mut Line, spec: &LaunchSpec) {
    line.option("-name", format!("guest={},debug-threads=on", spec.vm));
    line.option("-uuid", spec.vm.to_string());
    line.0.extend(["-nodefaults", "-no-user-config"].map(str::to_owned));
    line.option("-display", "none");
    line.option("-sandbox", SANDBOX);
    line.option("-machine", "q35,usb=off,vmport=off");
    match spec.accelerator {
        Accelerator::Kvm => {
            line.option("-accel", "kvm");
            line.option("-cpu", "host");
        }
        Accelerator::Tcg => {
            line.option("-accel", format!("tcg,thread=multi,tb-size={TCG_BUFFER_MIB}"));
            // Five-level page tables cost time in emulation.
            line.option("-cpu", "max,la57=off");
        }
    }
    line.option("-smp", format!("cpus={0},sockets=1,cores={0},threads=1", spec.vcpus));
    line.option("-m", format!("size={}M", spec.memory_mib));
    line.option("-rtc", "base=utc");
    line.option("-boot", "strict=on");
    // The process stays when the guest has powered off or panicked: an agent that was away can still ask for it.
    line.option("-action", "shutdown=pause,panic=pause");
}

fn disks(line: &mut Line, spec: &LaunchSpec, descriptors: &Descriptors) {
    line.descriptor(descriptors.base, FdSet::Base);
    line.descriptor(descriptors.disk, FdSet::Disk);
    line.block(&file("base-file", FdSet::Base, true));
    line.block(&match spec.base.format {
        // Whatever its header says, nothing is below it.
        ImageFormat::Qcow2 => json!({
            "driver": "qcow2", "node-name": "base", "file": "base-file", "read-only": true, "backing": null,
        }),
        ImageFormat::Raw => json!({"driver": "raw", "node-name": "base", "file": "base-file", "read-only": true}),
    });
    line.block(&file("disk-file", FdSet::Disk, false));
    line.block(&json!({
        "driver": "qcow2", "node-name": "disk", "file": "disk-file", "backing": "base", "discard": "unmap",
    }));
    line.option("-device", "virtio-blk-pci,drive=disk,bootindex=0");
    if let Some(seed) = descriptors.seed {
        line.descriptor(seed, FdSet::Seed);
        line.block(&file("seed-file", FdSet::Seed, true));
        line.block(&json!({"driver": "raw", "node-name": "seed", "file": "seed-file", "read-only": true}));
        line.option("-device", "virtio-blk-pci,drive=seed");
    }
}

fn file(node: &str, set: FdSet, read_only: bool) -> Value {
    let discard = if read_only { "ignore" } else { "unmap" };
    json!({
        "driver": "file", "node-name": node, "filename": set.path(), "read-only": read_only, "discard": discard,
    })
}

fn network(line: &mut Line, nic: &NicSpec, tap: i32) {
    line.option("-netdev", format!("tap,id=net0,fd={tap},vhost=off"));
    let [a, b, c, d, e, f] = nic.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    // Without a ROM it does not try to boot from the network.
    line.option("-device", format!("virtio-net-pci,netdev=net0,mac={mac},romfile="));
}

#[cfg(test)]
#[path = "command_line_tests.rs"]
mod tests;

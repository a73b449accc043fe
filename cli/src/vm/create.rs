//! `otherix vm create`.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use otherix_runtime::files;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmView;

use super::definition::VmDefinition;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::resource::args::WaitArgs;
use crate::resource::create;

#[derive(Debug, Args)]
pub(crate) struct CreateVmArgs {
    #[command(flatten)]
    definition: VmDefinition,

    /// A file with what cloud-init is to do (`#cloud-config`, a script); - is standard input. It is kept for ever, and
    /// every user may read it: no place for secrets
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,

    /// A file with cloud-init's configuration of the network, version 1 or 2 [default: the guest's, which is DHCP]
    #[arg(long, value_name = "FILE")]
    network_config: Option<PathBuf>,

    /// A file with public keys that may log in, one in each line; can be repeated
    #[arg(long, value_name = "FILE")]
    ssh_key: Vec<PathBuf>,

    /// Output format; with json and --wait, the VM is printed after the wait
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) const HELP: &str = "\
The VM's node fetches the image, makes a disk from it and runs the VM; with --tap-only, it does not. The NIC gets a \
MAC address and, on the node, a tap that is a port of the network's bridge; on a network with DHCP, also an address. \
--wait waits until the VM runs and its NIC is ready. If the network or node does not exist, nothing is created (exit \
code 3).

Examples:
  otherix vm create web-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 --network net-dev --wait
  otherix vm create db-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 --network net-app \
--ip 10.20.0.9
  otherix vm create web-2 --image-url https://images.example/debian-12.qcow2 --arch arm64 --node node-2
  otherix vm create big-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 --vcpus 8 \
--memory-mb 16384 --disk-gib 100 --ssh-key ~/.ssh/id_ed25519.pub
  otherix vm create batch-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 -o json";

/// Longest file that is read: more than the control plane accepts, which says how much it does.
const FILE_MAX: u64 = 1 << 20;

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: CreateVmArgs, printer: &mut Printer) -> Result<(), Failure> {
    let CreateVmArgs { mut definition, user_data, network_config, ssh_key, output: _, wait } = args;
    let mut unread = Violations::default();
    let seed = &mut definition.machine.cloud_init;
    seed.user_data = user_data.and_then(|path| unread.check("user_data", read(&path)));
    seed.network_config = network_config.and_then(|path| unread.check("network_config", read(&path)));
    for keys in ssh_key.iter().filter_map(|path| unread.check("ssh_key", read(path))) {
        let lines = keys.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        seed.ssh_keys.extend(lines.map(str::to_owned));
    }
    let violations = unread.combine(Err::<(), _>(definition.violations())).err().unwrap_or_default();
    if !violations.is_empty() {
        return Err(create::invalid::<VmView>(violations));
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let draft = definition.resolve(&mut client).await?;
    create::run::<VmView>(client, &draft, wait, printer).await
}

/// Reads a text that a flag names; `-` is standard input.
fn read(path: &Path) -> Result<String, String> {
    let bytes = if path == Path::new("-") {
        files::read_at_most(io::stdin().lock(), FILE_MAX)
    } else {
        files::open_regular(path).and_then(|file| files::read_at_most(file, FILE_MAX))
    };
    let bytes = bytes.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| format!("must be a text: `{}` is not UTF-8", path.display()))
}

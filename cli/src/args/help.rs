//! What `--help` says behind the flags: examples above all.

pub(super) mod network;
pub(super) mod node;
pub(super) mod vm;

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    unexpected error
  2    usage: the command line or the request breaks rules
  3    not found
  4    conflict with what exists
  5    blocked by what depends on it
  6    no permission, or not authenticated
  7    NATS or the control plane cannot be reached, or cannot work now
  8    a node failed (with --wait)
  124  --wait-timeout has passed

Data goes to stdout, everything else to stderr. With `-o json` an error is one JSON object on stderr:
  {\"error\":{\"code\":…,\"message\":…,\"details\":{…}}}

Examples:
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix network list
  otherix --server nats://10.0.0.5:4222 network get net-dev -o json";

/// A manifest, and what may be in it.
pub(super) const MANIFEST_HELP: &str = "\
A manifest is YAML (or JSON), in several documents if there is `---` between them:

  apiVersion: otherix/v1
  kind: Network
  metadata: {name: net-app}
  spec:
    type: bridge              # or overlay, which takes only a subnet
    bridgeName: br-app
    managed: true
    egress: nat               # or none
    subnet: 10.20.0.0/24
    gateway: 10.20.0.1
    mtu: 1500
    vlan: 12
  ---
  apiVersion: otherix/v1
  kind: VM
  metadata: {name: web-1}
  spec:
    imageURL: https://images.example/debian-12.qcow2
    arch: amd64               # or arm64
    network: net-app          # its name or UUID; without it the VM has no NIC
    node: node-1              # its name or UUID; chosen when absent

All files are checked before anything is sent: every problem is reported with its file, line and field, and then nothing is \
done (exit code 2). After that each document is tried whatever became of the others; the exit code is that of the first that \
failed. Networks are created before VMs and deleted after them, whatever their order. --dry-run checks too, and asks the \
control plane what exists, but changes nothing.";

pub(super) const APPLY_EXAMPLES: &str = "\
Examples:
  otherix create -f networks.yaml
  otherix create -f networks.yaml -f vms.yaml --dry-run
  otherix network get net-app -o yaml | otherix create -f -";

pub(super) const UNAPPLY_EXAMPLES: &str = "\
Networks and VMs are found by name; what else a manifest says of them does not matter. Nobody is asked. A network that a \
VM's NIC uses is reported and left (exit code 5), one that does not exist is reported (exit code 3).

Examples:
  otherix delete -f networks.yaml
  otherix delete -f networks.yaml -f more.yaml --dry-run
  otherix network list -o yaml | otherix delete -f -";

pub(super) const COMPLETION_EXAMPLES: &str = "\
Examples:
  otherix completion bash > /etc/bash_completion.d/otherix
  otherix completion zsh > \"${fpath[1]}/_otherix\"
  otherix completion fish > ~/.config/fish/completions/otherix.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Makes the folder if it is not there, and replaces pages that are; prints the files it wrote.

Examples:
  otherix man /usr/local/share/man/man1
  otherix man . && man ./otherix-network-create.1";

pub(super) const VERSION_EXAMPLES: &str = "\
Examples:
  otherix version
  otherix version -o json";

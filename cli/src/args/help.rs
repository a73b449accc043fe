//! What `--help` says behind the flags: examples above all.

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

pub(super) const NETWORK_EXAMPLES: &str = "\
Examples:
  otherix network create net-dev --bridge-name br-dev --managed
  otherix net list --type bridge
  otherix net get net-dev
  otherix net delete net-dev";

pub(super) const CREATE_EXAMPLES: &str = "\
A bridge with --managed belongs to the control plane, which makes, repairs and removes it on every node. Without --managed \
the bridge is somebody else's and is only checked for. Egress `nat` needs --managed and --subnet. An overlay needs --subnet \
and takes none of --bridge-name, --managed, --egress, --gateway, --mtu, --vlan.

Examples:
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix network create net-app --bridge-name br-app --managed --egress nat --subnet 10.20.0.0/24
  otherix network create net-trunk --bridge-name br0 --vlan 120
  otherix network create net-east --type overlay --subnet 10.30.0.0/24 -o json";

pub(super) const LIST_EXAMPLES: &str = "\
READY counts the nodes that are ready, of those that are expected to be. When there are more networks than fit, the last line \
on stderr is `next cursor: …` (in JSON: meta.next_cursor); pass it with --cursor for the next page.

Examples:
  otherix network list
  otherix network list --type overlay --show-ids
  otherix network list --limit 50 --cursor CURSOR -o json
  otherix network list -o name";

pub(super) const GET_EXAMPLES: &str = "\
A deleted network can be shown by its UUID until every node has confirmed its removal.

Examples:
  otherix network get net-dev
  otherix network get 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11 -o json";

pub(super) const DELETE_EXAMPLES: &str = "\
Asks first when stdin is a terminal. A network that a VM's NIC uses is not deleted (exit code 5); --force does not change that.

Examples:
  otherix network delete net-dev
  otherix network delete net-dev --force --wait --wait-timeout 2m";

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

All files are checked before anything is sent: every problem is reported with its file, line and field, and then nothing is \
done (exit code 2). After that each document is tried whatever became of the others; the exit code is that of the first that \
failed. --dry-run checks too, and asks the control plane which networks exist, but changes nothing.";

pub(super) const APPLY_EXAMPLES: &str = "\
Examples:
  otherix create -f networks.yaml
  otherix create -f networks.yaml --dry-run
  otherix network get net-app -o yaml | otherix create -f -";

pub(super) const UNAPPLY_EXAMPLES: &str = "\
Networks are found by name; what else a manifest says of them does not matter. Nobody is asked. A network that a VM's NIC \
uses is reported and left (exit code 5), one that does not exist is reported (exit code 3).

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

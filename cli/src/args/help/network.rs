//! The help of `otherix network`.

pub(crate) const EXAMPLES: &str = "\
Examples:
  otherix network create net-dev --bridge-name br-dev --managed
  otherix net list --type bridge
  otherix net get net-dev
  otherix net delete net-dev";

pub(crate) const CREATE: &str = "\
A bridge with --managed belongs to the control plane, which makes, repairs and removes it on every node. Without --managed \
the bridge is somebody else's and is only checked for. Egress `nat` needs --managed and --subnet. An overlay needs --subnet \
and takes none of --bridge-name, --managed, --egress, --gateway, --mtu, --vlan.

Examples:
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix network create net-app --bridge-name br-app --managed --egress nat --subnet 10.20.0.0/24
  otherix network create net-trunk --bridge-name br0 --vlan 120
  otherix network create net-east --type overlay --subnet 10.30.0.0/24 -o json";

pub(crate) const LIST: &str = "\
READY counts the nodes that are ready, of those that are expected to be. When there are more networks than fit, the last line \
on stderr is `next cursor: …` (in JSON: meta.next_cursor); pass it with --cursor for the next page.

Examples:
  otherix network list
  otherix network list --type overlay --show-ids
  otherix network list --limit 50 --cursor CURSOR -o json
  otherix network list -o name";

pub(crate) const GET: &str = "\
A deleted network can be shown by its UUID until every node has confirmed its removal.

Examples:
  otherix network get net-dev
  otherix network get 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11 -o json";

pub(crate) const DELETE: &str = "\
Asks first when stdin is a terminal. A network that a VM's NIC uses is not deleted (exit code 5); --force does not change that; delete \
the VMs first.

Examples:
  otherix network delete net-dev
  otherix network delete net-dev --force --wait --wait-timeout 2m";

//! The help of `otherix vm`.

pub(crate) const EXAMPLES: &str = "\
A VM has a place on a node, and with --network a NIC there. Its image is not yet fetched and it is not yet booted.

Examples:
  otherix vm create web-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 --network net-dev --wait
  otherix vm list
  otherix vm get web-1
  otherix vm delete web-1";

pub(crate) const CREATE: &str = "\
The NIC gets a MAC address and, on the VM's node, a tap that is a port of the network's bridge. --wait waits until the NIC \
is ready; a VM without one is ready at once. A network or node that does not exist is reported (exit code 3), and nothing is \
created. The image is not yet fetched, and the VM is not yet booted.

Examples:
  otherix vm create web-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 --network net-dev --wait
  otherix vm create web-2 --image-url https://images.example/debian-12.qcow2 --arch arm64 --network net-dev --node node-2
  otherix vm create batch-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 -o json";

pub(crate) const LIST: &str = "\
STATUS is that of the NIC on the VM's node. When there are more VMs than fit, the last line on stderr is `next cursor: …` (in \
JSON: meta.next_cursor); pass it with --cursor for the next page.

Examples:
  otherix vm list
  otherix vm list --show-ids
  otherix vm list --limit 50 --cursor CURSOR -o json
  otherix vm list -o name";

pub(crate) const GET: &str = "\
With `-o yaml` the manifest names the network and leaves the node to be chosen again. A deleted VM can be shown by its UUID \
until its node has confirmed its removal.

Examples:
  otherix vm get web-1
  otherix vm get 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11 -o json";

pub(crate) const DELETE: &str = "\
Asks first when stdin is a terminal. The VM's NIC goes with it, and does not keep its network from being deleted any more.

Examples:
  otherix vm delete web-1
  otherix vm delete web-1 --force --wait --wait-timeout 2m";

//! The help of `otherix node`.

pub(crate) const EXAMPLES: &str = "\
Examples:
  otherix node list
  otherix node get node-1
  otherix node delete node-1";

pub(crate) const LIST: &str = "\
READY, PENDING and FAILED count the networks that are so on the node, MESH is its address in the mesh that carries overlays, SINCE \
says when it became reachable or unreachable. When there are more nodes than fit, the last line on stderr is `next cursor: …` (in JSON: meta.next_cursor); pass it with --cursor \
for the next page.

Examples:
  otherix node list
  otherix node list -o json";

pub(crate) const GET: &str = "\
Shows each network that the node has reported on, what is wrong with it there, and what works against it without being \
otherix's to change. Then its place in the mesh, and for each other node of the mesh what this one last said of it: ESTABLISHED is \
`yes` while the last handshake is younger than 180 s, RX and TX are the bytes received from and sent to it. A node that has said \
nothing of a peer since the control plane started has `no`.

Examples:
  otherix node get node-1
  otherix node get node-1 -o json";

pub(crate) const DELETE: &str = "\
Asks first when stdin is a terminal. Works whether or not the node is reachable: nobody waits for it any more, and as soon as its \
agent hears of it, it removes from the machine what otherix made there. A node that VMs are placed on is not removed (exit code 5); \
--force does not change that; delete the VMs first. The name is free again. The node itself never joins again: to bring the machine \
back, stop its agent, empty the agent's state folder and start it; it is a new node then.

Examples:
  otherix node delete node-1
  otherix node delete node-1 --force -o json";

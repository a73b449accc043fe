//! The help of `otherix node`.

pub(crate) const EXAMPLES: &str = "\
Examples:
  otherix node list
  otherix node get node-1";

pub(crate) const LIST: &str = "\
READY, PENDING and FAILED count the networks that are so on the node, SINCE says when it became reachable or unreachable. When \
there are more nodes than fit, the last line on stderr is `next cursor: …` (in JSON: meta.next_cursor); pass it with --cursor \
for the next page.

Examples:
  otherix node list
  otherix node list -o json";

pub(crate) const GET: &str = "\
Shows each network that the node has reported on, what is wrong with it there, and what works against it without being \
otherix's to change.

Examples:
  otherix node get node-1
  otherix node get node-1 -o json";

//! How many requests to nodes may wait at the same time. Each waits for seconds, and costs some memory here and on its
//! node.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::NodeId;
use otherix_schemas::value::UserId;

/// Requests of one user: some consoles in parallel, each with one request that reads and one that types.
pub(super) const OF_USER_MAX: usize = 64;

/// Requests to one node. Its agent takes a few more, for answers that are under way.
pub(super) const OF_NODE_MAX: usize = 128;

/// Requests in all.
pub(super) const ALL_MAX: usize = 2048;

/// The requests that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    users: HashMap<UserId, usize>,
    nodes: HashMap<NodeId, usize>,
    all: usize,
}

/// The right to let a request wait, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    limits: Limits,
    user: UserId,
    node: NodeId,
}

impl Limits {
    /// Counts a request.
    ///
    /// # Errors
    /// `unavailable` if too many wait.
    pub(super) fn take(&self, user: &UserId, node: NodeId) -> Result<Turn, ErrorBody> {
        let mut counts = self.lock();
        let of = |count: Option<&usize>| count.copied().unwrap_or_default();
        let refused = if of(counts.users.get(user)) >= OF_USER_MAX {
            Some(format!("{OF_USER_MAX} requests of this user wait for nodes already: close some consoles"))
        } else if of(counts.nodes.get(&node)) >= OF_NODE_MAX {
            Some(format!("{OF_NODE_MAX} requests wait for this node already: try again later"))
        } else if counts.all >= ALL_MAX {
            Some(format!("{ALL_MAX} requests wait for nodes already: try again later"))
        } else {
            None
        };
        if let Some(text) = refused {
            return Err(ErrorBody::new(ErrorCode::Unavailable, text));
        }
        *counts.users.entry(user.clone()).or_default() += 1;
        *counts.nodes.entry(node).or_default() += 1;
        counts.all += 1;
        Ok(Turn { limits: self.clone(), user: user.clone(), node })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.limits.lock();
        release(&mut counts.users, &self.user);
        release(&mut counts.nodes, &self.node);
        counts.all = counts.all.saturating_sub(1);
    }
}

fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn node(number: u128) -> NodeId {
        NodeId::new(Uuid::from_u128(number))
    }

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    #[test]
    fn each_user_and_each_node_has_a_limit_and_what_ends_counts_no_more() {
        let limits = Limits::default();
        let mut taken: Vec<_> = (0..OF_USER_MAX).map(|_| limits.take(&user("ann"), node(1)).unwrap()).collect();
        let error = limits.take(&user("ann"), node(2)).unwrap_err();
        assert_eq!(error.error.code, ErrorCode::Unavailable);
        let others: Vec<_> =
            (0..OF_NODE_MAX - OF_USER_MAX).map(|_| limits.take(&user("bob"), node(1)).unwrap()).collect();
        assert!(limits.take(&user("eve"), node(1)).unwrap_err().error.message.contains("this node"));
        limits.take(&user("eve"), node(2)).unwrap();
        taken.pop();
        limits.take(&user("ann"), node(1)).unwrap();
        drop((taken, others));
        let counts = limits.lock();
        assert_eq!((counts.users.len(), counts.nodes.len(), counts.all), (0, 0, 0), "nothing is left");
    }
}

//! Subscriptions: which messages they match, and what is in flight to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream;
use otherix_runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{MemoryNetwork, State};
use crate::transport::{Message, Subject, Subscription};

/// The server's side of a subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) link: usize,
    subject: Subject,
    queue_group: Option<String>,
    /// Messages by the time at which they arrive, then by the order in which they were sent.
    pub(super) in_flight: BTreeMap<(Instant, u64), Message>,
    /// When the last message that must not be overtaken arrives.
    last_arrival: Option<Instant>,
    changed: Arc<Notify>,
}

/// Ends the subscription when it is dropped.
struct Guard {
    network: MemoryNetwork,
    id: u64,
    changed: Arc<Notify>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.network.state().subscribers.remove(&self.id);
    }
}

impl MemoryNetwork {
    pub(super) fn subscribe(&self, link: usize, subject: Subject, queue_group: Option<&str>) -> Subscription {
        let changed = Arc::new(Notify::new());
        let subscriber = Subscriber {
            link,
            subject,
            queue_group: queue_group.map(ToOwned::to_owned),
            in_flight: BTreeMap::new(),
            last_arrival: None,
            changed: Arc::clone(&changed),
        };
        let mut state = self.state();
        let id = state.id();
        state.subscribers.insert(id, subscriber);
        drop(state);
        let guard = Guard { network: self.clone(), id, changed };
        Subscription::new(stream::unfold(guard, async |guard| Some((guard.next().await, guard))))
    }

    /// Sends a message to a subscription, subject to the faults.
    pub(super) fn deliver(&self, state: &mut State, id: u64, message: &Message) {
        let (faults, runtime) = (state.faults, &*self.runtime);
        let order = state.id();
        let Some(link) = state.subscribers.get(&id).map(|subscriber| subscriber.link) else { return };
        if let Some(pause) = faults.cut(runtime) {
            state.cut(link);
            self.restore_after(link, pause);
            return;
        }
        let copy_order = state.id();
        let Some(subscriber) = state.subscribers.get_mut(&id) else { return };
        let mut arrival = Instant::now() + faults.delay(runtime);
        if !faults.reorders(runtime) {
            arrival = subscriber.last_arrival.map_or(arrival, |last| arrival.max(last));
            subscriber.last_arrival = Some(arrival);
        }
        subscriber.in_flight.insert((arrival, order), message.clone());
        if faults.duplicates(runtime) {
            let arrival = arrival + faults.delay(runtime);
            subscriber.in_flight.insert((arrival, copy_order), message.clone());
        }
        subscriber.changed.notify_one();
    }
}

impl Guard {
    async fn next(&self) -> Message {
        loop {
            let arrival = match self.receive() {
                Ok(message) => return message,
                Err(arrival) => arrival,
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(arrival.unwrap_or_else(Instant::now)), if arrival.is_some() => {}
            }
        }
    }

    /// Returns the first message that has arrived; if there is none, the arrival of the next one in flight.
    fn receive(&self) -> Result<Message, Option<Instant>> {
        let mut state = self.network.state();
        let subscriber = state.subscribers.get_mut(&self.id).ok_or(None)?;
        let entry = subscriber.in_flight.first_entry().ok_or(None)?;
        let (arrival, _order) = *entry.key();
        if arrival <= Instant::now() { Ok(entry.remove()) } else { Err(Some(arrival)) }
    }
}

impl State {
    /// Returns the subscriptions that receive a message: all that match, but only one of each queue group.
    pub(super) fn receivers(&self, subject: &str, runtime: &dyn Runtime) -> Vec<u64> {
        let mut receivers = Vec::new();
        let mut groups: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
        for (id, subscriber) in &self.subscribers {
            if !self.is_up(subscriber.link) || !matches(&subscriber.subject, subject) {
                continue;
            }
            match &subscriber.queue_group {
                Some(group) => groups.entry((group, &subscriber.subject)).or_default().push(*id),
                None => receivers.push(*id),
            }
        }
        for members in groups.values() {
            let count = u64::try_from(members.len()).unwrap_or(1).max(1);
            let chosen = if count == 1 { 0 } else { runtime.random_u64() % count };
            receivers.extend(usize::try_from(chosen).ok().and_then(|chosen| members.get(chosen)));
        }
        receivers
    }
}

/// Returns whether a subject matches a pattern, in which `*` stands for one token and a final `>` for one or more.
pub(super) fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(expected), Some(token)) if expected == token => {}
            (_, _) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_tokens() {
        for (pattern, subject) in
            [("a.b", "a.b"), ("a.*", "a.b"), ("a.>", "a.b"), ("a.>", "a.b.c"), ("*.b.>", "a.b.c.d")]
        {
            assert!(matches(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in
            [("a.b", "a"), ("a", "a.b"), ("a.*", "a"), ("a.*", "a.b.c"), ("a.>", "a"), ("a.b", "a.c")]
        {
            assert!(!matches(pattern, subject), "{pattern} {subject}");
        }
    }
}

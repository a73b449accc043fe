//! The feed over a network that delays, duplicates and reorders messages and cuts connections: every event is returned
//! once, in order. Each seed gives a different run, which depends on nothing else.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Runtime, SeededRuntime};
use otherix_schemas::id::EventId;
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use otherix_transport::feed::{Feed, FeedItem, FeedScope};
use otherix_transport::memory::{Faults, MemoryConnection, MemoryNetwork};
use otherix_transport::transport::Message;
use support::{Sample, events};
use tokio::sync::watch;

/// Events in a run.
const EVENTS: u64 = 80;

/// Virtual time within which all events must be returned: many times the duration of all cuts and retries.
const DEADLINE: Duration = Duration::from_secs(600);

struct World {
    runtime: Arc<dyn Runtime>,
    network: MemoryNetwork,
    events: Vec<Sample>,
}

impl World {
    fn new(seed: u64) -> Self {
        let runtime: Arc<dyn Runtime> = SeededRuntime::with_timers(seed);
        let network = MemoryNetwork::new(Arc::clone(&runtime), Faults::HARSH);
        network.create_stream();
        let events = events(EVENTS, &*runtime);
        Self { runtime, network, events }
    }

    fn follower(&self) -> MemoryConnection {
        self.network.client("node".parse().unwrap())
    }

    fn below(&self, limit: u64) -> u64 {
        self.runtime.random_u64() % limit
    }

    /// Publishes the events live and appends them to the stream with a lag, as a relay does. Announces the last event
    /// of the scope occasionally, and always at the end.
    fn publish(&self, scope: FeedScope, head: watch::Sender<Position>) {
        let relay = self.network.control("otherixd".parse().unwrap());
        let (network, runtime, events) = (self.network.clone(), Arc::clone(&self.runtime), self.events.clone());
        let publish = async move {
            let below = |limit: u64| runtime.random_u64() % limit;
            let (mut appended, mut last) = (0, Position::ZERO);
            let append = |appended: &mut u64, up_to: Position| {
                while *appended < up_to.get() {
                    let event = &events[usize::try_from(*appended).unwrap()];
                    let message = Message::new(event.subject.clone(), event.body.clone());
                    *appended = network.append(message, Position::new(*appended)).unwrap().get();
                }
            };
            for event in &events {
                tokio::time::sleep(Duration::from_millis(below(100))).await;
                relay.publish(Message::new(subject::live(&event.subject), event.body.clone())).await.unwrap();
                if below(3) == 0 {
                    append(&mut appended, event.position);
                }
                if scope == FeedScope::Everything || event.is_decision {
                    last = event.position;
                }
                if below(5) == 0 {
                    head.send_replace(last);
                }
            }
            tokio::time::sleep(Duration::from_millis(below(3000))).await;
            append(&mut appended, Position::new(EVENTS));
            head.send_replace(last);
            // Dropping the sender would end the receivers.
            head.closed().await;
        };
        drop((&*self.runtime as &dyn Runtime).spawn("publish", publish));
    }

    fn expected(&self, scope: FeedScope, after: Position) -> Vec<EventId> {
        let in_scope =
            |event: &&Sample| event.position > after && (scope == FeedScope::Everything || event.is_decision);
        self.events.iter().filter(in_scope).map(|event| event.id).collect()
    }
}

/// Returns the ids of the next events, as many as `count`; calls to `next` are dropped at random times.
async fn follow(world: &World, feed: &mut Feed, count: usize) -> Vec<EventId> {
    let mut followed = Vec::new();
    while followed.len() < count {
        let timeout = Duration::from_millis(world.below(2000));
        match tokio::time::timeout(timeout, feed.next()).await {
            Ok(Ok(FeedItem::Event { envelope, bytes, signed_head: _ })) => {
                let event = &world.events[usize::try_from(envelope.header.position.get()).unwrap() - 1];
                assert_eq!((event.id, &event.body[..]), (envelope.header.id, &bytes[..]));
                followed.push(envelope.header.id);
            }
            Ok(Ok(FeedItem::Current)) | Err(_) => {}
            Ok(Err(error)) => panic!("{error}"),
        }
        while let Some(FeedItem::Event { envelope, .. }) = feed.try_next().unwrap() {
            followed.push(envelope.header.id);
        }
    }
    followed
}

async fn run(seed: u64, scope: FeedScope) -> Vec<EventId> {
    let world = World::new(seed);
    let (sender, head) = watch::channel(Position::ZERO);
    world.publish(scope, sender);
    // Followers begin at different times.
    tokio::time::sleep(Duration::from_millis(world.below(5000))).await;
    let after = Position::new(world.below(3));
    let begin = after.get().checked_sub(1).map(|index| &world.events[usize::try_from(index).unwrap()]);
    let begins = begin.is_some_and(|event| scope == FeedScope::Everything || event.is_decision);
    let after = if begins { after } else { Position::ZERO };
    let mut feed = Feed::new(world.follower().into(), scope, after, head).await.unwrap();
    let expected = world.expected(scope, after);
    let followed = tokio::time::timeout(DEADLINE, follow(&world, &mut feed, expected.len())).await;
    let followed = followed.unwrap_or_else(|_| panic!("seed {seed}: the feed stalled after {}", feed.position()));
    assert_eq!(followed, expected, "seed {seed}");
    // No further event follows.
    world.network.set_faults(Faults::NONE);
    let after = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let FeedItem::Event { envelope, .. } = feed.next().await.unwrap() {
                return envelope;
            }
        }
    });
    assert!(after.await.is_err(), "seed {seed}: an event was returned twice");
    followed
}

#[tokio::test(start_paused = true)]
async fn returns_every_event_once_in_order() {
    for seed in 0..150 {
        run(seed, FeedScope::Everything).await;
    }
}

#[tokio::test(start_paused = true)]
async fn returns_every_decision_once_in_order() {
    for seed in 0..150 {
        run(seed, FeedScope::Decisions).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_depends_on_its_seed_only() {
    assert_eq!(run(7, FeedScope::Everything).await, run(7, FeedScope::Everything).await);
    assert_ne!(run(7, FeedScope::Everything).await, run(8, FeedScope::Everything).await);
}

#[tokio::test(start_paused = true)]
async fn a_lagging_stream_is_read_again_after_a_pause() {
    let world = World::new(1);
    world.network.set_faults(Faults::NONE);
    let first = &world.events[0];
    world.network.append(Message::new(first.subject.clone(), first.body.clone()), Position::ZERO).unwrap();
    // Position 2 was announced, and the stream does not have it yet.
    let (_sender, head) = watch::channel(Position::new(2));
    let mut feed = Feed::new(world.follower().into(), FeedScope::Everything, Position::ZERO, head).await.unwrap();
    assert_eq!(follow(&world, &mut feed, 1).await, [first.id]);
    // Without a pause, virtual time would stand still and this would not return.
    tokio::time::timeout(Duration::from_secs(1), feed.next()).await.unwrap_err();
}

//! `--stream-max-age`: the stream and its mirror delete old events, and the journal's are read by `event.list`.

use otherix_schemas::event::{EventPage, EventQuery, ListEvents};
use otherix_schemas::id::NodeId;
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Request};
use otherix_testkit::wait::wait_for;
use otherix_transport::Nats;
use uuid::Uuid;

use crate::daemon::{DEADLINE, OtherixdProcess, call, create, overlay, tool};

/// The events after a position, page by page.
async fn replay(user: &Nats, mut query: EventQuery) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let page: Answer<EventPage> = call(user, Request::of::<ListEvents>(), &query, None).await.unwrap();
        events.extend(page.data.events.iter().map(|event| event.get().to_owned()));
        query.after = page.data.complete_to;
        if page.data.complete_to == page.meta.position {
            return events;
        }
    }
}

/// The last sequence of stream and mirror, once both have deleted all events.
async fn emptied(daemon: &OtherixdProcess) -> u64 {
    let (stream, mirror) = (daemon.stream().await, daemon.mirror().await);
    wait_for(DEADLINE, "stream and mirror to delete all events", async || {
        let mut states = Vec::new();
        for context in [&stream, &mirror] {
            let stream = context.get_stream("OTHERIX_EVENTS").await.map_err(|error| error.to_string())?;
            let state = &stream.cached_info().state;
            states.push((state.messages, state.last_sequence));
        }
        match states[..] {
            [(0, last), (0, same)] if last == same && last > 0 => Ok(last),
            _ => Err(format!("{states:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn what_the_stream_has_deleted_is_read_from_the_journal() {
    let mut daemon = OtherixdProcess::start_with(&["--stream-max-age", "2s"]).await;
    let admin = daemon.connect("admin").await;
    for name in ["a", "b", "c"] {
        create(&admin, &overlay(name)).await;
    }
    let all = replay(&admin, EventQuery::default()).await;
    let last = emptied(&daemon).await;
    assert_eq!(last, all.len() as u64);

    // The same bytes, from any position on, and for nodes.
    assert_eq!(replay(&admin, EventQuery::default()).await, all);
    let after = |position| EventQuery { after: Position::new(position), ..EventQuery::default() };
    assert_eq!(replay(&admin, after(last - 2)).await, all[all.len() - 2..]);
    let node = daemon.node(NodeId::new(Uuid::now_v7()), "node-1").await;
    let decisions = replay(&node, EventQuery { decisions_only: true, ..EventQuery::default() }).await;
    assert_eq!(decisions.iter().filter(|event| event.contains("network.created")).count(), 3);

    // Neither the running control plane nor the next one makes the streams again.
    let url = daemon.url().await;
    let credentials = daemon.credentials("admin");
    let verify = ["journal", "verify", "--nats", &url, "--credentials", credentials.to_str().unwrap()];
    let (is_identical, printed, error) = tool(daemon.state(), &verify).await;
    assert!(is_identical && printed.contains("the stream "), "{printed}{error}");
    let first_log = daemon.log();
    daemon.stop().await;
    daemon.start_again().await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("d")).await;
    assert_eq!(emptied(&daemon).await, replay(&admin, EventQuery::default()).await.len() as u64);
    for log in [first_log, daemon.log()] {
        for text in ["is rebuilt", "recreating it", "restarting it"] {
            assert!(!log.contains(text), "{log}");
        }
    }
}

//! The live feed of events as a signal that something has changed. What changed is then queried, so that an event that
//! was missed delays an answer, and never makes it wrong.
//!
//! Cancel-safety: changes nothing; a wait may be dropped at any await.

use std::time::Duration;

use futures::FutureExt;
use futures::future::select_all;
use otherix_schemas::permission::{Permission, Role};
use otherix_schemas::subject::{self, ADMINISTRATION, DECISIONS, OUTCOMES};
use otherix_transport::transport::Subscription;
use tokio::time::{Instant, timeout_at};

use crate::client::ControlPlaneClient;
use crate::failure::Failure;

/// Longest time between queries, and so the delay if an event is missed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Subscriptions to live events.
pub(crate) struct LiveFeed {
    subjects: Vec<&'static str>,
    /// Empty while the connection is lost.
    subscriptions: Vec<Subscription>,
}

impl LiveFeed {
    /// Subscribes to outcomes.
    pub(crate) async fn outcomes(client: &mut ControlPlaneClient) -> Result<Self, Failure> {
        Self::subscribe(client, vec![OUTCOMES]).await
    }

    /// Subscribes to all events that the user may read.
    pub(crate) async fn events(client: &mut ControlPlaneClient) -> Result<Self, Failure> {
        let role = client.endpoint()?.credentials.current().role().map(str::to_owned);
        let mut subjects = vec![DECISIONS, OUTCOMES];
        let role = Role::ALL.into_iter().find(|known| Some(known.as_str()) == role.as_deref());
        if role.is_some_and(|role| role.has(Permission::AuditRead)) {
            subjects.push(ADMINISTRATION);
        }
        Self::subscribe(client, subjects).await
    }

    async fn subscribe(client: &mut ControlPlaneClient, subjects: Vec<&'static str>) -> Result<Self, Failure> {
        let mut feed = Self { subjects, subscriptions: Vec::new() };
        feed.resubscribe(client).await?;
        Ok(feed)
    }

    async fn resubscribe(&mut self, client: &mut ControlPlaneClient) -> Result<(), Failure> {
        let mut subscriptions = Vec::with_capacity(self.subjects.len());
        for subject in &self.subjects {
            subscriptions.push(client.subscribe(subject::live(subject)).await?);
        }
        self.subscriptions = subscriptions;
        Ok(())
    }

    /// Subscribes again if the connection was lost. A failure is tried again the next time.
    pub(crate) async fn resubscribe_if_lost(&mut self, client: &mut ControlPlaneClient) {
        if self.subscriptions.is_empty() {
            let _next_time = self.resubscribe(client).await;
        }
    }

    /// Returns when an event has arrived or the next query is due, at `deadline` at the latest. Queued events count as
    /// one.
    pub(crate) async fn changed(&mut self, deadline: Option<Instant>) {
        let poll = Instant::now() + POLL_INTERVAL;
        let poll = deadline.map_or(poll, |deadline| deadline.min(poll));
        let next = async {
            if self.subscriptions.is_empty() {
                std::future::pending().await
            } else {
                let nexts = self.subscriptions.iter_mut().map(|subscription| Box::pin(subscription.next()));
                select_all(nexts).await.0.is_some()
            }
        };
        if timeout_at(poll, next).await == Ok(false) {
            self.subscriptions.clear();
        }
        for subscription in &mut self.subscriptions {
            while let Some(Some(_)) = subscription.next().now_or_never() {}
        }
    }
}

//! Removes the consumers of users that may not have any: whose key was revoked or rotated, who were deleted, and whose
//! role has changed to one that may not read them, because those after it may.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use otherix_commands::store::EventStore;
use otherix_runtime::{Backoff, LogLimit, SystemRuntime};
use otherix_schemas::error::Causes;
use otherix_schemas::user::Callers;
use otherix_schemas::value::UserId;
use tokio::sync::watch;
use tokio::time::timeout;

use super::slots::entitled;
use super::{ConsumersError, UserConsumers};

/// Interval of checks while the registry of users does not change. One may have been created meanwhile, as part of a
/// mirror that was made anew.
const CHECK: Duration = Duration::from_secs(30);

/// Delays after a failure.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

impl<J: EventStore> UserConsumers<J> {
    /// Removes such consumers at the start, whenever those who may have some have changed, and from time to time.
    pub(crate) async fn remove_orphans(&self) -> Infallible {
        let mut callers = self.callers.clone();
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, &SystemRuntime);
        let failed = LogLimit::default();
        loop {
            let (checked, pause) = match self.remove_once().await {
                Ok(entitled) => {
                    backoff.reset();
                    (Some(entitled), CHECK)
                }
                // It is made with the consumers that were saved, which may have lost their users meanwhile.
                Err(ConsumersError::Busy) => (None, backoff.next_delay()),
                Err(error) => {
                    if let Some(count) = failed.hit() {
                        tracing::warn!(error = %Causes(&error), count, "consumers of former users are not removed yet");
                    }
                    (None, backoff.next_delay())
                }
            };
            until_due(&mut callers, checked.as_ref(), pause).await;
        }
    }

    /// Returns who may have consumers.
    async fn remove_once(&self) -> Result<BTreeSet<UserId>, ConsumersError> {
        let _turn = self.turn().await?;
        let mut orphans = self.all().await?;
        let entitled = entitled(&self.callers.borrow());
        orphans.retain(|consumer| !entitled.contains(&UserId::from(&consumer.key)));
        for orphan in orphans {
            let slot = &orphan.info.name;
            self.remove(slot).await?;
            let (key, consumer) = (orphan.key.as_str(), orphan.spec.as_ref().map(|spec| spec.name.as_str()));
            tracing::info!(key, consumer, slot, "a durable consumer is removed: its user may have none any more");
        }
        Ok(entitled)
    }
}

/// Waits until others may have consumers than those that were `checked`, or `pause` is over. Most changes of the
/// registry are about keys of nodes and join tokens.
async fn until_due(callers: &mut watch::Receiver<Callers>, checked: Option<&BTreeSet<UserId>>, pause: Duration) {
    let is_other = |callers: &Callers| checked.is_some_and(|checked| *checked != entitled(callers));
    let has_writer_ended = timeout(pause, callers.wait_for(is_other)).await.is_ok_and(|found| found.is_err());
    if has_writer_ended {
        // The control plane is about to end.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;

    /// A registry with an admin, if there is one, and revoked keys of nodes.
    fn callers(admin: Option<&str>, revoked: &[&str]) -> Callers {
        let time = "2026-01-02T03:04:05.000006Z";
        let user = |key: &str| {
            json!({
                "name": "ann", "role": "admin", "key": key, "expires_at": null, "revoked_at": null, "valid_after": 1,
                "created_at": time, "updated_at": time, "generation": 1, "version": 1,
            })
        };
        let users: serde_json::Map<String, Value> =
            admin.map(|key| ("018f0000-0000-7000-8000-000000000001".to_owned(), user(key))).into_iter().collect();
        let revoked: serde_json::Map<String, Value> = revoked.iter().map(|key| ((*key).to_owned(), json!(1))).collect();
        let enrollments = json!({ "tokens": {}, "nodes": {}, "revoked": revoked });
        serde_json::from_value(json!({ "users": users, "revoked": {}, "enrollments": enrollments })).unwrap()
    }

    const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    const OTHER: &str = "UAEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQTVLI";

    /// How long it is until the next check, after a change of the registry.
    async fn waited(checked: Option<Callers>, after: Callers) -> Duration {
        let registry = watch::Sender::new(checked.clone().unwrap_or_default());
        let (mut receiver, begin) = (registry.subscribe(), Instant::now());
        registry.send_replace(after);
        let checked = checked.as_ref().map(entitled);
        until_due(&mut receiver, checked.as_ref(), CHECK).await;
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn consumers_are_listed_when_those_change_who_may_have_some() {
        let before = callers(Some(KEY), &[]);
        let nodes_changed = callers(Some(KEY), &[OTHER]);
        assert!(waited(Some(before.clone()), nodes_changed.clone()).await >= CHECK, "a key of a node");
        assert_eq!(waited(Some(before.clone()), callers(None, &[])).await, Duration::ZERO, "a deleted user");
        assert_eq!(waited(Some(before), callers(Some(OTHER), &[])).await, Duration::ZERO, "a rotated key");
        assert!(waited(None, nodes_changed).await >= CHECK, "a failed check is repeated after a delay");
    }
}

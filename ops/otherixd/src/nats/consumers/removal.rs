//! Removes the consumers of users that may not have any: whose key was revoked or rotated, who were deleted, and whose
//! role has changed to one that may not read them, because those after it may.

use std::convert::Infallible;
use std::time::Duration;

use otherix_commands::store::EventStore;
use otherix_runtime::{Backoff, LogLimit, SystemRuntime};
use otherix_schemas::error::Causes;
use otherix_schemas::value::UserId;
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
    /// Removes such consumers at the start, after each change of the registry, and from time to time.
    pub(crate) async fn remove_orphans(&self) -> Infallible {
        let mut callers = self.callers.clone();
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, &SystemRuntime);
        let failed = LogLimit::default();
        loop {
            callers.mark_unchanged();
            let pause = match self.remove_once().await {
                Ok(()) => {
                    backoff.reset();
                    CHECK
                }
                // It is made with the consumers that were saved, which may have lost their users meanwhile.
                Err(ConsumersError::Busy) => backoff.next_delay(),
                Err(error) => {
                    if let Some(count) = failed.hit() {
                        tracing::warn!(error = %Causes(&error), count, "consumers of former users are not removed yet");
                    }
                    backoff.next_delay()
                }
            };
            if let Ok(Err(_writer_ended)) = timeout(pause, callers.changed()).await {
                // The control plane is about to end.
                return std::future::pending().await;
            }
        }
    }

    async fn remove_once(&self) -> Result<(), ConsumersError> {
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
        Ok(())
    }
}

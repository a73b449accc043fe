//! The mirrors of the buckets, which people read.

use std::convert::Infallible;
use std::time::Duration;

use async_nats::jetstream::Context;
use otherix_runtime::LogLimit;
use otherix_schemas::bucket::Bucket;
use otherix_schemas::error::Causes;
use otherix_transport::JetStream;

use super::streams::{Progress, ensure_mirror};

/// Interval between checks.
const CHECK: Duration = Duration::from_secs(1);

/// Keeps the mirrors.
pub(crate) struct StateMirrors {
    control: Context,
    state: Context,
}

impl StateMirrors {
    /// `control` is a connection to the account of the buckets, `state` to the account of the mirrors.
    pub(crate) fn new(control: &JetStream, state: &JetStream) -> Self {
        Self { control: control.context(), state: state.context() }
    }

    /// Runs until the future is dropped.
    pub(crate) async fn run(self) -> Infallible {
        let failed = LogLimit::default();
        let mut mirrors = Bucket::ALL.map(|bucket| (bucket, Progress::default()));
        loop {
            for (bucket, progress) in &mut mirrors {
                if let Err(error) = ensure_mirror(&self.control, &self.state, *bucket, progress).await
                    && let Some(count) = failed.hit()
                {
                    tracing::warn!(error = %Causes(&error), count, "a bucket cannot be read by others yet");
                }
            }
            tokio::time::sleep(CHECK).await;
        }
    }
}

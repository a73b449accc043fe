//! The number of replicas of streams that exist already.

use async_nats::jetstream::Context;
use otherix_schemas::error::Causes;

/// Sets the number of replicas of a stream that has another one. Fewer copies are no reason not to serve: a failure is
/// logged only.
pub(crate) async fn set_replicas(context: &Context, name: &str, replicas: usize, what: &str) {
    let Ok(stream) = context.get_stream(name).await else { return };
    let mut config = stream.cached_info().config.clone();
    let present = config.num_replicas.max(1);
    if present == replicas {
        return;
    }
    config.num_replicas = replicas;
    match context.update_stream(config).await {
        Ok(_) => tracing::info!(what, name, from = present, to = replicas, "changed the number of replicas"),
        Err(error) => {
            let error = Causes(&error);
            tracing::error!(what, name, present, wanted = replicas, %error, "cannot change the number of replicas");
        }
    }
}

//! What a service manager that understands `sd_notify(3)` is told. Without one, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// The program is ready. `status` is a line for `systemctl status`.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The program stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the watchdog of the service manager, if it has one, that the program's thread still runs. Never ends; dropping
/// it has the service manager end the program after `WatchdogSec`.
pub async fn keep_alive() {
    let Some(interval) = sd_notify::watchdog_enabled().map(|timeout| timeout / 3) else {
        return std::future::pending().await;
    };
    let mut turns = tokio::time::interval(interval.max(Duration::from_millis(1)));
    loop {
        turns.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

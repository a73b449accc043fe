//! What a server refuses on a connection that it has accepted: single subjects, or from now on the user. The requests
//! that wait for an answer fail at once.

use super::client::{PendingRequest, Shared, lock};
use super::failure::CredentialsRefusal;
use crate::transport::RequestError;

/// What the server does not permit, and on which subject.
#[derive(Debug, PartialEq, Eq)]
enum Violation<'a> {
    Publish(&'a str),
    Subscription(&'a str),
}

impl<'a> Violation<'a> {
    /// Parses `Permissions Violation for Publish to "SUBJECT"`, and the same for a subscription.
    fn parse(error: &'a str) -> Option<Self> {
        let (kind, rest) = error.split_once(" to \"")?;
        let (subject, _) = rest.split_once('"')?;
        match kind {
            "Permissions Violation for Publish" => Some(Self::Publish(subject)),
            "Permissions Violation for Subscription" => Some(Self::Subscription(subject)),
            _ => None,
        }
    }
}

impl Shared {
    /// Called when the server refuses the user, or does not any more. Requests that wait fail.
    pub(super) fn refused(&self, refusal: Option<CredentialsRefusal>) {
        lock(&self.refusal).clone_from(&refusal);
        if let Some(refusal) = refusal {
            self.fail_requests(|_| Some(RequestError::Unauthenticated(refusal.to_string())));
        }
    }

    /// Handles an error that the server reports. Returns whether it refuses a single subject.
    pub(super) fn reported(&self, error: &str) -> bool {
        let violation = Violation::parse(error);
        let is_answered = match &violation {
            Some(Violation::Publish(subject)) => self.fail_requests(|pending| {
                let is_refused = pending.subject.eq_ignore_ascii_case(subject);
                is_refused.then(|| self.denied(&pending.subject))
            }),
            // Without it, no request is ever answered.
            Some(Violation::Subscription(subject)) if subject.starts_with(&self.inbox()) => {
                self.fail_requests(|_| Some(self.denied(subject)))
            }
            Some(Violation::Subscription(_)) | None => false,
        };
        if let Some(count) = (!is_answered).then(|| self.errors.hit()).flatten() {
            tracing::warn!(error = %error.escape_debug(), count, "the NATS server reports an error");
        }
        violation.is_some()
    }

    fn denied(&self, subject: &str) -> RequestError {
        RequestError::Denied { subject: subject.to_owned(), role: lock(&self.role).clone() }
    }

    /// Fails the requests for which `failure` returns an error. Returns whether there are any.
    pub(super) fn fail_requests(&self, failure: impl Fn(&PendingRequest) -> Option<RequestError>) -> bool {
        let mut requests = lock(&self.requests);
        let failed: Vec<(String, RequestError)> =
            requests.iter().filter_map(|(number, pending)| Some((number.clone(), failure(pending)?))).collect();
        let is_any = !failed.is_empty();
        for (number, error) in failed {
            if let Some(PendingRequest { reply, .. }) = requests.remove(&number) {
                // Whoever asked may be gone.
                let _unless_dropped = reply.send(Err(error));
            }
        }
        is_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_name_their_subject() {
        let publish = "Permissions Violation for Publish to \"otherix.req.v1.UA.network.get\"";
        assert_eq!(Violation::parse(publish), Some(Violation::Publish("otherix.req.v1.UA.network.get")));
        let subscription = "Permissions Violation for Subscription to \"a.>\" using queue \"q\"";
        assert_eq!(Violation::parse(subscription), Some(Violation::Subscription("a.>")));
        for other in ["Authorization Violation", "Permissions Violation for Publish to \"a", "x to \"a\"", ""] {
            assert_eq!(Violation::parse(other), None, "{other}");
        }
    }
}

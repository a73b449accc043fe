//! Who types at a console: one session at a time, which ends when its client closes it, or is not heard of for a while.
//! Pure.

use std::time::Duration;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::node::ConsoleGrant;
use otherix_schemas::value::UserId;
use otherix_schemas::vm::CONSOLE_SESSION_MS;
use tokio::time::Instant;
use uuid::Uuid;

/// A session, and the user whose it must be.
type Claim<'a> = (Uuid, &'a UserId);

/// The sessions of a console.
#[derive(Debug, Default)]
pub(super) struct Sessions(Option<Session>);

#[derive(Debug)]
struct Session {
    id: Uuid,
    holder: UserId,
    holder_name: String,
    /// Bytes that were typed.
    typed: u64,
    until: Instant,
}

/// What of the input is to be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Typing {
    /// Bytes of the session that were typed before.
    pub(super) typed: u64,
    /// Bytes of the input that were typed before; all of it, and more, if something before it is missing.
    pub(super) skip: usize,
}

impl Sessions {
    /// Begins a session.
    ///
    /// # Errors
    /// `conflict` if there is another one, which is not to be taken over.
    pub(super) fn open(&mut self, grant: ConsoleGrant, now: Instant) -> Result<(), ErrorBody> {
        let ConsoleGrant { id: _, session, holder, holder_name, take_over } = grant;
        if let Some(other) = self.0.as_ref().filter(|other| now < other.until && other.id != session && !take_over) {
            let name = other.holder_name.clone();
            let text = format!(
                "user `{name}` types at this console: read it with --read-only, or end that session with --take-over"
            );
            return Err(ErrorBody::new(ErrorCode::Conflict, text).with_detail("holder", name));
        }
        let until = now + Duration::from_millis(CONSOLE_SESSION_MS.into());
        self.0 = Some(Session { id: session, holder, holder_name, typed: 0, until });
        Ok(())
    }

    /// Keeps a session, and says what of its input, which begins at `offset`, is to be typed.
    ///
    /// # Errors
    /// `conflict` if the session has ended.
    pub(super) fn keep(&mut self, claim: Claim<'_>, offset: u64, now: Instant) -> Result<Typing, ErrorBody> {
        let session = self.claimed(claim).filter(|session| now < session.until).ok_or_else(|| ended(claim.0))?;
        session.until = now + Duration::from_millis(CONSOLE_SESSION_MS.into());
        let typed = session.typed;
        let skip = typed.checked_sub(offset).map_or(usize::MAX, |skip| usize::try_from(skip).unwrap_or(usize::MAX));
        Ok(Typing { typed, skip })
    }

    /// Counts what was typed. Returns how many bytes were in all; `None` if the session has ended meanwhile.
    pub(super) fn typed(&mut self, claim: Claim<'_>, length: usize) -> Option<u64> {
        let session = self.claimed(claim)?;
        session.typed = session.typed.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        Some(session.typed)
    }

    /// Ends a session.
    pub(super) fn close(&mut self, claim: Claim<'_>) {
        if self.claimed(claim).is_some() {
            self.0 = None;
        }
    }

    fn claimed(&mut self, (id, holder): Claim<'_>) -> Option<&mut Session> {
        self.0.as_mut().filter(|session| session.id == id && session.holder == *holder)
    }
}

fn ended(session: Uuid) -> ErrorBody {
    let text = "the session at this console has ended: it was taken over, not heard of for a while, or the node's \
        agent was restarted. Open another one";
    ErrorBody::new(ErrorCode::Conflict, text).with_detail("session", session.to_string())
}

#[cfg(test)]
mod tests {
    use otherix_schemas::id::VmId;

    use super::*;

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    fn grant(session: u128, holder: &str, take_over: bool) -> ConsoleGrant {
        let (id, session) = (VmId::new(Uuid::nil()), Uuid::from_u128(session));
        ConsoleGrant { id, session, holder: user(holder), holder_name: format!("{holder}-name"), take_over }
    }

    const LASTS: Duration = Duration::from_millis(CONSOLE_SESSION_MS as u64);

    #[test]
    fn one_types_and_others_are_told_who() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.open(grant(1, "ann", false), now).unwrap();
        let refused = sessions.open(grant(2, "bob", false), now).unwrap_err();
        assert_eq!((refused.error.code, &refused.error.details["holder"]), (ErrorCode::Conflict, &"ann-name".into()));
        assert!(refused.error.message.contains("--read-only"), "{}", refused.error.message);
        // The same user, too: which of its windows would type?
        assert!(sessions.open(grant(3, "ann", false), now).is_err());
        sessions.open(grant(2, "bob", true), now).unwrap();
        let ann = user("ann");
        let ended = sessions.keep((Uuid::from_u128(1), &ann), 0, now).unwrap_err();
        assert_eq!(ended.error.details["session"], Uuid::from_u128(1).to_string());
    }

    #[test]
    fn a_session_is_its_users() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.open(grant(1, "ann", false), now).unwrap();
        let (id, ann, bob) = (Uuid::from_u128(1), user("ann"), user("bob"));
        assert!(sessions.keep((id, &bob), 0, now).is_err());
        assert_eq!(sessions.typed((id, &bob), 1), None);
        sessions.close((id, &bob));
        sessions.keep((id, &ann), 0, now).unwrap();
        sessions.close((id, &ann));
        assert!(sessions.keep((id, &ann), 0, now).is_err());
        sessions.open(grant(2, "bob", false), now).unwrap();
    }

    #[test]
    fn a_client_that_is_gone_gives_way() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.open(grant(1, "ann", false), now).unwrap();
        let (id, ann) = (Uuid::from_u128(1), user("ann"));
        let later = now + LASTS - Duration::from_millis(1);
        sessions.keep((id, &ann), 0, later).unwrap();
        assert!(sessions.open(grant(2, "bob", false), now + LASTS).is_err(), "it was heard of since");
        assert!(sessions.keep((id, &ann), 0, later + LASTS).is_err());
        sessions.open(grant(2, "bob", false), later + LASTS).unwrap();
    }

    #[test]
    fn what_is_sent_again_is_not_typed_again() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.open(grant(1, "ann", false), now).unwrap();
        let (id, ann) = (Uuid::from_u128(1), user("ann"));
        let keep = |sessions: &mut Sessions, offset| sessions.keep((id, &ann), offset, now).unwrap();
        assert_eq!(keep(&mut sessions, 0), Typing { typed: 0, skip: 0 });
        assert_eq!(sessions.typed((id, &ann), 5), Some(5));
        assert_eq!(keep(&mut sessions, 0), Typing { typed: 5, skip: 5 });
        assert_eq!(keep(&mut sessions, 3), Typing { typed: 5, skip: 2 });
        assert_eq!(keep(&mut sessions, 9), Typing { typed: 5, skip: usize::MAX }, "something is missing before it");
        assert_eq!(keep(&mut sessions, u64::MAX).skip, usize::MAX);
    }
}

//! Node requests: what the control plane asks a node, and the node's answer. Each is signed, as decisions are: who
//! controls the messaging system cannot type at a console.
//!
//! The signature covers the node, a challenge that the node's agent has made at its start and tells with heartbeats,
//! and a number, so that no request can be used twice or elsewhere. No clock is involved.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signature;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::decision_chain::{DecisionKey, DecisionSigner, Nonce};
use crate::error::ErrorBody;
use crate::value::UserId;
use crate::vm::{ConsoleClosing, ConsoleInput, ConsoleRead};

/// First line of what is signed, so that a signature of anything else is never taken for one of a request.
const CONTEXT: &str = "otherix-node-request/v1";

/// What a node is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum NodeAsk {
    /// Answered by [`crate::vm::ConsoleOutput`].
    ReadConsole(ConsoleRead),
    /// Answered by [`crate::vm::ConsoleSession`].
    OpenConsole(ConsoleGrant),
    /// Answered by [`crate::vm::ConsoleTyped`].
    WriteConsole {
        /// Who types.
        holder: UserId,
        #[serde(flatten)]
        input: ConsoleInput,
    },
    /// Answered by [`crate::vm::ConsoleClosed`].
    CloseConsole {
        /// Whose session it is.
        holder: UserId,
        #[serde(flatten)]
        session: ConsoleClosing,
    },
    /// Answered by [`crate::image::NodeImages`].
    ListImages {},
}

/// A session that is to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleGrant {
    pub id: crate::id::VmId,
    pub session: Uuid,
    /// The id of the user whose session it is.
    pub holder: UserId,
    /// Its name, which others are told.
    pub holder_name: String,
    pub take_over: bool,
}

/// A request to a node, with the control plane's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignedAsk {
    /// Made at the start of the control plane.
    pub sender: Nonce,
    /// Differs from those of all other requests of this sender.
    pub number: u64,
    /// The challenge of the node's agent.
    pub challenge: Nonce,
    /// A [`NodeAsk`], in JSON.
    pub body: String,
    /// Ed25519 signature in base64, by the decision key, of the lines `otherix-node-request/v1`, key of the node's NATS
    /// user, challenge, sender and number, each ended by a line feed, and the body.
    pub signature: String,
}

/// A request is not one of the control plane to this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("it is for another start of the agent")]
    Challenge,
    #[error("it is not signed by the control plane")]
    Signature,
}

impl SignedAsk {
    fn text(&self, node: &UserId) -> String {
        let Self { sender, number, challenge, body, signature: _ } = self;
        let (sender, challenge) = (String::from(*sender), String::from(*challenge));
        format!("{CONTEXT}\n{node}\n{challenge}\n{sender}\n{number}\n{body}")
    }

    /// Signs a request to the node with this key.
    #[must_use]
    pub fn signed(self, node: &UserId, signer: &DecisionSigner) -> Self {
        let signature = STANDARD.encode(signer.sign(self.text(node).as_bytes()).to_bytes());
        Self { signature, ..self }
    }

    /// Checks that the request is from the control plane, for the node with this key, and for this start of its agent.
    /// Whether it was received before is up to the caller.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn verify(&self, key: &DecisionKey, node: &UserId, challenge: Nonce) -> Result<(), AskError> {
        let bytes = STANDARD.decode(&self.signature).map_err(|_| AskError::Signature)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| AskError::Signature)?;
        if !key.verifies(self.text(node).as_bytes(), &signature) {
            return Err(AskError::Signature);
        }
        if self.challenge == challenge { Ok(()) } else { Err(AskError::Challenge) }
    }
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AskAnswer {
    /// Those of the request.
    pub sender: Nonce,
    pub number: u64,
    #[serde(flatten)]
    pub result: AskResult,
}

/// The result of a request to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AskResult {
    Done(Value),
    Refused(ErrorBody),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        text.parse().unwrap()
    }

    fn ask() -> SignedAsk {
        let (sender, challenge) = (Nonce::new([1; 16]), Nonce::new([2; 16]));
        let body = serde_json::to_string(&NodeAsk::ListImages {}).unwrap();
        SignedAsk { sender, number: 3, challenge, body, signature: String::new() }
    }

    #[test]
    fn only_the_control_plane_asks_and_nothing_can_be_changed() {
        let (signer, node) = (DecisionSigner::from_seed(&[7; 32]), user("NODE"));
        let (key, challenge) = (signer.public(), Nonce::new([2; 16]));
        let signed = ask().signed(&node, &signer);
        assert_eq!(signed.verify(&key, &node, challenge), Ok(()));
        let other = DecisionSigner::from_seed(&[8; 32]);
        assert_eq!(ask().signed(&node, &other).verify(&key, &node, challenge), Err(AskError::Signature));
        assert_eq!(ask().verify(&key, &node, challenge), Err(AskError::Signature), "not signed at all");
        assert_eq!(signed.verify(&key, &user("OTHER"), challenge), Err(AskError::Signature));
        assert_eq!(signed.verify(&key, &node, Nonce::new([9; 16])), Err(AskError::Challenge));
        for changed in [
            SignedAsk { number: 4, ..signed.clone() },
            SignedAsk { sender: Nonce::new([5; 16]), ..signed.clone() },
            SignedAsk { body: signed.body.replace("images", "imagez"), ..signed.clone() },
            SignedAsk { challenge: Nonce::new([9; 16]), ..signed.clone() },
        ] {
            assert_eq!(changed.verify(&key, &node, changed.challenge), Err(AskError::Signature), "{changed:?}");
        }
    }

    #[test]
    fn asks_and_answers_round_trip() {
        let body = ask().body;
        assert_eq!(
            (body.as_str(), serde_json::from_str(&body).unwrap()),
            (r#"{"ask":"list-images"}"#, NodeAsk::ListImages {})
        );
        let input = ConsoleInput {
            id: crate::id::VmId::new(Uuid::nil()),
            session: Uuid::nil(),
            offset: 1 << 40,
            data: crate::vm::ConsoleBytes(vec![3]),
        };
        let typed = NodeAsk::WriteConsole { holder: user("u"), input };
        let text = serde_json::to_string(&typed).unwrap();
        assert_eq!(serde_json::from_str::<NodeAsk>(&text).unwrap(), typed, "{text}");
        let result = AskResult::Done(Value::Null);
        let answer = AskAnswer { sender: Nonce::new([1; 16]), number: 3, result };
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<AskAnswer>(&text).unwrap(), answer, "{text}");
    }
}

//! The simulated control plane's answers.

use async_nats::HeaderMap;
use async_nats::jetstream::stream;
use otherix_schemas::decision_chain::{ChainDigest, DecisionHead, Nonce};
use otherix_schemas::error::{ErrorBody, ErrorCode, LAST_REPORT};
use otherix_schemas::event::{EventPage, EventQuery};
use otherix_schemas::node::{
    Heartbeat, HeartbeatAnswer, INCARNATION_AHEAD_MAX, JoinAnswer, JoinRequest, NodeReport, ReportNumber, ReportReceipt,
};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta};
use otherix_schemas::subject;
use serde::Serialize;
use serde_json::value::RawValue;

use super::ControlState;

impl ControlState {
    pub(super) fn join(&mut self, body: &[u8]) -> Result<Vec<u8>, ErrorBody> {
        let JoinRequest { node_id, .. } = serde_json::from_slice(body).unwrap();
        self.joins.push(node_id);
        if self.refuses_removed {
            return Err(removed());
        }
        if let Some(refusal) = self.refusal {
            return Err(ErrorBody::new(ErrorCode::Conflict, refusal));
        }
        let Self { cluster, epoch, head, .. } = *self;
        Ok(json(&answer(JoinAnswer { cluster, epoch, decision_head: head })))
    }

    /// `None`: no answer.
    pub(super) fn report(&mut self, body: &[u8]) -> Option<Result<Vec<u8>, ErrorBody>> {
        let report: NodeReport = serde_json::from_slice(body).unwrap();
        let outdated = self.recorded.filter(|last| report.number() <= *last);
        let refusal = out_of_range(&report, self.recorded);
        if refusal.is_none() {
            self.recorded = self.recorded.max(Some(report.number()));
        }
        self.reports.push(report);
        if self.ignore_reports > 0 {
            self.ignore_reports -= 1;
            return None;
        }
        let refusal = self.refuses_removed.then(removed).or(refusal);
        Some(refusal.map_or_else(|| Ok(json(&answer(ReportReceipt { unknown: Vec::new(), outdated }))), Err))
    }

    pub(super) fn heartbeat(&mut self, subject: &str, body: &[u8]) -> Result<Vec<u8>, ErrorBody> {
        let Heartbeat { position, nonce, set_back, started_with, saved, .. } = serde_json::from_slice(body).unwrap();
        self.heartbeats.push(position);
        self.set_back = set_back;
        self.ledger = started_with.zip(saved);
        self.senders.push(subject.rsplit('.').next().unwrap().to_owned());
        if self.refuses_removed {
            return Err(removed());
        }
        Ok(json(&self.heartbeat_answer(nonce)))
    }

    fn heartbeat_answer(&self, nonce: Option<Nonce>) -> HeartbeatAnswer {
        HeartbeatAnswer {
            decision_head: self.head,
            other_agent: self.other_agent,
            set_back: None,
            signed_head: nonce.map(|nonce| self.chain().sign(&self.signer, Some(nonce))),
            decision_key: Some(self.signer.public()),
            key_rotations: self.key_rotations.clone(),
            checkpoint: None,
            log_key: None,
            log_contradiction: None,
        }
    }

    /// The head of the chain of the published decisions.
    fn chain(&self) -> DecisionHead {
        let decisions = self.published.iter().filter(|(subject, _)| subject.starts_with("otherix.evt."));
        let digest = decisions.fold(ChainDigest::START, |digest, (_, bytes)| digest.after(bytes));
        DecisionHead { cluster: self.cluster, epoch: self.epoch, position: self.head, digest }
    }

    /// A page of the events, of 200 at most.
    pub(super) fn events(&mut self, body: &[u8]) -> Vec<u8> {
        let EventQuery { after, decisions_only, .. } = serde_json::from_slice(body).unwrap();
        self.reads += 1;
        let mut page = EventPage { complete_to: after, ..EventPage::default() };
        let served = self.served.as_ref().unwrap_or(&self.published);
        for (position, (subject, bytes)) in (1..).zip(served).skip_while(|(position, _)| *position <= after.get()) {
            if page.events.len() == 200 {
                break;
            }
            if subject.starts_with("otherix.evt.") || (!decisions_only && !bytes.is_empty()) {
                page.events.push(RawValue::from_string(String::from_utf8(bytes.clone()).unwrap()).unwrap());
            }
            page.complete_to = Position::new(position);
        }
        json(&Answer { data: page, meta: Meta::at(self.last) })
    }
}

fn answer<Data>(data: Data) -> Answer<Data> {
    Answer { data, meta: Meta::at(Position::ZERO) }
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap()
}

/// Headers and body of a refusal.
pub(super) fn refusal(reason: &ErrorBody) -> (HeaderMap, Vec<u8>) {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Service-Error", reason.error.message.as_str());
    headers.insert("Nats-Service-Error-Code", "409");
    (headers, json(reason))
}

/// The error for a report whose number is out of range.
fn out_of_range(report: &NodeReport, last: Option<ReportNumber>) -> Option<ErrorBody> {
    let error = || ErrorBody::new(ErrorCode::ValidationFailed, "the incarnation is out of range");
    (report.incarnation > INCARNATION_AHEAD_MAX).then(|| error().with_detail(LAST_REPORT, serde_json::json!(last)))
}

/// The error for a node that was removed: its keys are revoked.
fn removed() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unauthenticated, "the credential with the key `U` is revoked")
}

pub(super) fn stream(republish: bool) -> stream::Config {
    stream::Config {
        name: subject::STREAM.into(),
        subjects: subject::STREAM_SUBJECTS.map(str::to_owned).to_vec(),
        republish: republish.then(|| stream::Republish {
            source: ">".into(),
            destination: subject::live(">"),
            headers_only: false,
        }),
        ..stream::Config::default()
    }
}

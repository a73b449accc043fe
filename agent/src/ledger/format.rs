//! The file format of the ledger: a header line with the format number and the SHA-256 of the rest, then the rest. A
//! truncated or altered file is distinguished from one that a newer version wrote.
//!
//! Decisions are in the stored shapes of their events. Does no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use otherix_schemas::decision_chain::ChainDigest;
use otherix_schemas::event::{Event, StoredError};
use otherix_schemas::id::{ClusterId, VmId};
use otherix_schemas::position::Position;
use otherix_schemas::value::VmName;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Ledger, Lineage};
use crate::model::cluster_view::{ClusterView, NetworkState};

/// The format that this version writes. Format 1 had no NICs, format 2 no mesh peers: nodes with such a file read all
/// decisions again. Format 3 is read, too; it has no digest of the chain of decisions. Format 4 has no names of VMs:
/// nodes with networks that resolve them use it until they have read all decisions again.
const FORMAT: u32 = 5;

/// The oldest format with the names of VMs.
const WITH_NAMES: u32 = 5;

/// The oldest format that is read.
const OLDEST: u32 = 3;

/// The errors of reading a ledger.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it is of format {0}, and this version of otherix-agent knows formats up to {FORMAT}")]
    Newer(u32),
    /// The format lacks decisions that this version needs.
    #[error("it is of format {0}, which leaves out what this version of otherix-agent needs")]
    Older(u32),
    /// The file is intact, but has fields that this version does not know.
    #[error("a newer version of otherix-agent wrote it")]
    Shape(#[source] serde_json::Error),
    /// It contains a decision that this version does not know.
    #[error("a newer version of otherix-agent wrote it")]
    Decision(#[source] StoredError),
}

/// The header, which all formats have.
#[derive(Serialize, Deserialize)]
struct LedgerHeader {
    format: u32,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerBody<Decision> {
    lineage: Lineage,
    position: Position,
    #[serde(default)]
    chain: Option<ChainDigest>,
    /// In format 3 only: the id of the last event.
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "no longer used")]
    last: Option<serde::de::IgnoredAny>,
    former: BTreeSet<ClusterId>,
    decisions: Vec<Decision>,
    /// Of all VMs; the decisions have only those of this node.
    #[serde(default)]
    names: BTreeMap<VmId, VmName>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerDecision<Data> {
    position: Position,
    r#type: String,
    data: Data,
}

fn digest(body: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(body) {
        // Writing into a `String` cannot fail.
        let _never = write!(text, "{byte:02x}");
    }
    text
}

/// Whether there are networks whose nodes resolve the names of VMs.
fn resolves_names(view: &ClusterView) -> bool {
    view.networks().any(|(_, network)| match &network.state {
        NetworkState::Defined(spec) => spec.dhcp().is_some_and(|dhcp| dhcp.dns),
        NetworkState::Deleted => false,
    })
}

/// Encodes a ledger.
///
/// # Errors
/// None in practice: all values can be serialised.
pub fn encode(ledger: &Ledger) -> Result<Vec<u8>, serde_json::Error> {
    let Ledger { lineage, chain, former, view } = ledger;
    let decisions: Vec<_> = view.decisions().collect();
    let decisions = decisions.iter().map(|(position, event)| LedgerDecision {
        position: *position,
        r#type: event.type_name().to_owned(),
        data: event.stored_data(),
    });
    let body = LedgerBody {
        lineage: *lineage,
        position: view.position(),
        chain: *chain,
        last: None,
        former: former.clone(),
        decisions: decisions.collect(),
        names: view.names().clone(),
    };
    let mut body = serde_json::to_vec(&body)?;
    body.push(b'\n');
    let mut text = serde_json::to_vec(&LedgerHeader { format: FORMAT, sha256: digest(&body) })?;
    text.push(b'\n');
    text.append(&mut body);
    Ok(text)
}

/// Decodes a ledger.
///
/// # Errors
/// [`FormatError`] if the file is damaged, or of another format.
pub fn decode(text: &[u8]) -> Result<Ledger, FormatError> {
    let end =
        text.iter().position(|byte| *byte == b'\n').ok_or(FormatError::Damaged("its first line is incomplete"))?;
    let (head, body) = text.split_at(end + 1);
    let head: LedgerHeader =
        serde_json::from_slice(head).map_err(|_| FormatError::Damaged("its first line is malformed"))?;
    if head.format > FORMAT {
        return Err(FormatError::Newer(head.format));
    }
    if head.format < OLDEST {
        return Err(FormatError::Older(head.format));
    }
    if head.sha256 != digest(body) {
        return Err(FormatError::Damaged("its content does not match the digest in its first line"));
    }
    let body: LedgerBody<LedgerDecision<Value>> = serde_json::from_slice(body).map_err(FormatError::Shape)?;
    let mut decisions = Vec::with_capacity(body.decisions.len());
    for LedgerDecision { position, r#type, data } in body.decisions {
        let event = Event::from_stored(&r#type, data).map_err(FormatError::Decision)?;
        decisions.push((position, event));
    }
    let view = ClusterView::restored(body.position, decisions).with_names(body.names);
    // Without an end of the chain, all decisions are read again.
    let chain = body.chain.filter(|_| head.format >= WITH_NAMES || !resolves_names(&view));
    Ok(Ledger { lineage: body.lineage, chain, former: body.former, view })
}

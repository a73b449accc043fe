//! The ledger as text: a line that says which form the rest has and what its SHA-256 is, and the rest. A file that is torn or
//! altered is told from one that a newer version wrote.
//!
//! Decisions are kept in the frozen shapes in which events are stored. Does no I/O.

use std::collections::BTreeSet;
use std::fmt::Write;

use otherix_schemas::event::{Event, StoredError};
use otherix_schemas::id::{ClusterId, EventId};
use otherix_schemas::position::Position;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Ledger, Lineage};
use crate::model::view::View;

/// The form that this version writes and reads. Form 1 had no NICs, form 2 no places in the mesh: what they leave
/// out is in the stream.
const FORMAT: u32 = 3;

/// Why a text is no ledger that can be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file is torn, altered or something else.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// The file is of a form that this version does not know.
    #[error("it is of format {0}, and this version of otherix-agent knows formats up to {FORMAT}")]
    Newer(u32),
    /// The file is of a form that leaves something out.
    #[error("it is of format {0}, which leaves out what this version of otherix-agent needs")]
    Older(u32),
    /// What the file says, undamaged, is not of the shape that this version knows.
    #[error("a newer version of otherix-agent wrote it")]
    Shape(#[source] serde_json::Error),
    /// A decision in it is not known to this version.
    #[error("a newer version of otherix-agent wrote it")]
    Decision(#[source] StoredError),
}

/// Every form begins with these, whatever comes after.
#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<Decision> {
    lineage: Lineage,
    position: Position,
    last: Option<EventId>,
    former: BTreeSet<ClusterId>,
    decisions: Vec<Decision>,
}

/// A decision that the view is made of.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision<Data> {
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

/// The text of a ledger.
///
/// # Errors
/// Never: all of its values have a JSON form.
pub fn encode(ledger: &Ledger) -> Result<Vec<u8>, serde_json::Error> {
    let Ledger { lineage, last, former, view } = ledger;
    let decisions: Vec<_> = view.decisions().collect();
    let decisions = decisions.iter().map(|(position, event)| Decision {
        position: *position,
        r#type: event.type_name().to_owned(),
        data: event.stored_data(),
    });
    let body = Body {
        lineage: *lineage,
        position: view.position(),
        last: *last,
        former: former.clone(),
        decisions: decisions.collect(),
    };
    let mut body = serde_json::to_vec(&body)?;
    body.push(b'\n');
    let mut text = serde_json::to_vec(&Head { format: FORMAT, sha256: digest(&body) })?;
    text.push(b'\n');
    text.append(&mut body);
    Ok(text)
}

/// The ledger of a text.
///
/// # Errors
/// When it is damaged, or this version is too old for it.
pub fn decode(text: &[u8]) -> Result<Ledger, FormatError> {
    let end = text.iter().position(|byte| *byte == b'\n').ok_or(FormatError::Damaged("its first line is cut off"))?;
    let (head, body) = text.split_at(end + 1);
    let head: Head = serde_json::from_slice(head).map_err(|_| FormatError::Damaged("its first line is malformed"))?;
    if head.format > FORMAT {
        return Err(FormatError::Newer(head.format));
    }
    if head.format < FORMAT {
        return Err(FormatError::Older(head.format));
    }
    if head.sha256 != digest(body) {
        return Err(FormatError::Damaged("its content does not have the digest that its first line says"));
    }
    let body: Body<Decision<Value>> = serde_json::from_slice(body).map_err(FormatError::Shape)?;
    let mut decisions = Vec::with_capacity(body.decisions.len());
    for Decision { position, r#type, data } in body.decisions {
        let event = Event::from_stored(&r#type, data).map_err(FormatError::Decision)?;
        decisions.push((position, event));
    }
    let view = View::restored(body.position, decisions);
    Ok(Ledger { lineage: body.lineage, last: body.last, former: body.former, view })
}

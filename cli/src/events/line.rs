//! An event as a line for people: when, at which position, what, on what, by whom, with which details, and from which
//! cause.

use std::collections::BTreeMap;

use otherix_schemas::nic::tap_name;
use otherix_schemas::position::Position;
use serde_json::{Map, Value};

use super::names::Names;
use crate::output::text::{clean, pad};

/// The least columns of position, type, subject and actor, so that most lines are aligned.
const WIDTHS: [usize; 4] = [6, 20, 20, 14];

/// What every event type begins with.
const TYPE_PREFIX: &str = "dev.otherix.";

/// Writes the lines of events. Knows the positions of those before, which may be causes.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) names: Names,
    /// Positions by event id.
    positions: BTreeMap<String, String>,
}

impl Lines {
    /// The line of an event, without a line feed at its end.
    pub(super) fn line(&mut self, event: &Value) -> String {
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let sequence = text("sequence");
        let position = Position::from_sequence(sequence).map_or_else(|_| sequence.to_owned(), |it| it.to_string());
        self.positions.insert(text("id").to_owned(), position.clone());
        let actor = match text("actorname") {
            "" => text("actor"),
            name => name,
        };
        let mut line = text("time").to_owned();
        let cells = [position, event_type(text("type")), self.subject(text("subject")), format!("by {actor}")];
        for (cell, width) in cells.iter().zip(WIDTHS) {
            line.push_str(&format!("  {}", pad(&clean(cell), width)));
        }
        let details = event.get("data").and_then(Value::as_object).map(|data| self.details(data, text("subject")));
        let cause = match text("causationid") {
            "" => None,
            id => Some(format!("cause: {}", self.positions.get(id).map_or(id, String::as_str))),
        };
        let rest: Vec<String> = details.into_iter().flatten().chain(cause).collect();
        line.push_str(&format!("  {}", clean(&rest.join(", "))));
        line.trim_end().to_owned()
    }

    /// `network/<id>` with the name of the resource.
    fn subject(&self, subject: &str) -> String {
        let Some((aggregate, id)) = subject.split_once('/') else { return subject.to_owned() };
        match aggregate {
            "nic" => format!("nic {}", tap(id)),
            // It has no name, and there is only one.
            "cluster" => aggregate.to_owned(),
            _ => format!("{aggregate} {}", self.names.name(id)),
        }
    }

    fn details(&self, data: &Map<String, Value>, subject: &str) -> Vec<String> {
        // Numbers that tell reports apart.
        if let Some(Value::Array(results)) = data.get("results") {
            return results.iter().filter_map(Value::as_object).map(|result| self.result(result)).collect();
        }
        let own = subject.split_once('/').map_or(subject, |(_, id)| id);
        let is_told = |(name, value): &(&String, &Value)| name.as_str() != "name" && value.as_str() != Some(own);
        data.iter().filter(is_told).flat_map(|(name, value)| self.field(name, value)).collect()
    }

    /// A network or NIC with its status: `net-dev ready`.
    fn result(&self, result: &Map<String, Value>) -> String {
        let text = |name: &str| result.get(name).and_then(Value::as_str);
        let resource = match (text("network_id"), text("nic_id")) {
            (Some(id), _) => self.names.name(id),
            (None, Some(id)) => format!("nic {}", tap(id)),
            (None, None) => String::new(),
        };
        let error = text("error").map(|error| format!(" ({error})")).unwrap_or_default();
        let warnings = result.get("warnings").and_then(Value::as_array).into_iter().flatten();
        let warnings: String = warnings.filter_map(Value::as_str).map(|text| format!(" (warning: {text})")).collect();
        format!("{resource} {}{error}{warnings}", text("status").unwrap_or_default())
    }

    /// A field with its value, unless it is absent. The fields of an object stand for themselves.
    fn field(&self, name: &str, value: &Value) -> Vec<String> {
        let named = |value: &str| vec![format!("{}={value}", name.strip_suffix("_id").unwrap_or(name))];
        match value {
            Value::Null => Vec::new(),
            Value::String(id) if name == "nic_id" => named(&tap(id)),
            Value::String(id) if name.ends_with("_id") => named(&self.names.name(id)),
            Value::String(text) if text.contains([' ', ',']) => named(&format!("\"{text}\"")),
            Value::String(text) => named(text),
            Value::Bool(_) | Value::Number(_) => named(&value.to_string()),
            Value::Object(fields) => fields.iter().flat_map(|(name, value)| self.field(name, value)).collect(),
            Value::Array(values) if values.is_empty() => named("none"),
            Value::Array(values) => values.iter().flat_map(|value| self.field(name, value)).collect(),
        }
    }
}

/// `dev.otherix.network.created.v1` without what is the same for all and the version.
fn event_type(type_name: &str) -> String {
    let name = type_name.strip_prefix(TYPE_PREFIX).unwrap_or(type_name);
    name.rsplit_once(".v").map_or(name, |(name, _version)| name).to_owned()
}

/// The name of a NIC's tap, by which people know it; the id if it is none.
fn tap(id: &str) -> String {
    id.parse().map_or_else(|_| id.to_owned(), |id| tap_name(id).to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn golden(name: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/golden").join(name);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn a_line_tells_what_happened_on_what_by_whom_and_why() {
        let mut lines = Lines::default();
        let created = lines.line(&golden("network.created.v1.nat.json"));
        assert_eq!(
            created,
            "2026-01-02T03:04:05.678901Z  7       network.created       network 0198e8c4-0000-7000-8000-000000000004  \
             by admin        bridge_name=br-dev, egress=nat, gateway=10.20.0.1, managed=true, mtu=1500, \
             subnet=10.20.0.0/24, type=bridge, vlan=7"
        );
        let mut outcome = golden("node.reconciled.v2.json");
        let cause = golden("network.created.v1.nat.json").get("id").cloned().unwrap();
        outcome.as_object_mut().unwrap().insert("causationid".to_owned(), cause);
        let line = lines.line(&outcome);
        let (_, details) = line.rsplit_once("  ").unwrap();
        assert_eq!(
            details,
            "0198e8c4-0000-7000-8000-000000000004 ready (warning: a foreign firewall drops it), \
             nic ot0198e8c40abc failed (no tap), cause: 7"
        );
    }

    #[test]
    fn every_event_has_a_line_without_control_characters() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/golden");
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let mut event = golden(&name);
            let line = Lines::default().line(&event);
            assert!(line.contains("2026-01-02T03:04:05.678901Z") && !line.contains("null"), "{name}: {line}");
            event.as_object_mut().unwrap().insert("actorname".to_owned(), "a\u{1b}[2J\nb".into());
            let line = Lines::default().line(&event);
            assert!(line.contains(r"a\u{1b}[2J\u{a}b") && line.chars().all(|c| !c.is_control()), "{name}: {line}");
        }
    }
}

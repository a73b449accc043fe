//! A consumer's definition: as a client sent it ([`ConsumerDraft`]) and validated ([`ConsumerSpec`]).

use std::fmt::Display;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::filter;
use crate::json_field::{integer, text, texts};
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::string_value;
use crate::violations::Violations;

/// Most consumers of a user.
pub const CONSUMERS_MAX: usize = 4;

/// Longest name, in characters.
const NAME_MAX: usize = 32;

/// Most filters of a consumer.
const FILTERS_MAX: usize = 16;

/// Seconds that a reader has to acknowledge an event: the default, and the range.
const ACK_WAIT: i64 = 30;
const ACK_WAIT_RANGE: RangeInclusive<i64> = 1..=3_600;

/// Events that may be delivered and not acknowledged: the default, and the range.
const ACK_PENDING: i64 = 1_000;
const ACK_PENDING_RANGE: RangeInclusive<i64> = 1..=1_000;

/// Seconds without a reader after which a consumer is removed: the default (30 days), and the range (an hour to a
/// year).
const INACTIVE: i64 = 30 * 86_400;
const INACTIVE_RANGE: RangeInclusive<i64> = 3_600..=366 * 86_400;

/// The name of a consumer: 1 to 32 of `a-z 0-9 _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[a-z0-9_-]{1,32}$"))]
pub struct ConsumerName(String);
string_value!(ConsumerName, ConsumerNameError);

/// A text that is not the name of a consumer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {NAME_MAX} of `a-z 0-9 _ -`")]
pub struct ConsumerNameError;

impl ConsumerName {
    /// # Errors
    /// If the text is not a name.
    pub fn parse(text: &str) -> Result<Self, ConsumerNameError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if (1..=NAME_MAX).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ConsumerNameError)
        }
    }
}

/// The event that a consumer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ConsumerStart {
    /// The first one.
    All,
    /// The first one that is recorded after the request.
    New,
    /// That at this position.
    Position(Position),
    /// The first one that was recorded at this time or later.
    Time(Timestamp),
}

/// A text that names no event to begin with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `all`, `new`, a position or an RFC 3339 time, not `{0}`")]
pub struct ConsumerStartError(String);

impl ConsumerStart {
    /// The position that was given.
    pub fn position(self) -> Option<Position> {
        match self {
            Self::Position(position) => Some(position),
            Self::All | Self::New | Self::Time(_) => None,
        }
    }
}

impl std::str::FromStr for ConsumerStart {
    type Err = ConsumerStartError;
    fn from_str(text: &str) -> Result<Self, ConsumerStartError> {
        match text {
            "all" => Ok(Self::All),
            "new" => Ok(Self::New),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let number = text.parse().ok().filter(|number| *number > 0);
                number.map(|number| Self::Position(Position::new(number)))
            }
            .ok_or_else(|| ConsumerStartError(text.to_owned())),
            _ => text.parse().map(Self::Time).map_err(|_| ConsumerStartError(text.to_owned())),
        }
    }
}

impl Display for ConsumerStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::New => f.write_str("new"),
            Self::Position(position) => position.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

impl TryFrom<String> for ConsumerStart {
    type Error = ConsumerStartError;
    fn try_from(text: String) -> Result<Self, ConsumerStartError> {
        text.parse()
    }
}

impl From<ConsumerStart> for String {
    fn from(start: ConsumerStart) -> Self {
        start.to_string()
    }
}

/// A consumer as a client sends it, not yet validated. `name` is required.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ConsumerDraft {
    /// 1 to 32 of `a-z 0-9 _ -`; unique among the user's consumers.
    pub name: String,
    /// The event to begin with: `all`, `new`, a position, or an RFC 3339 time (default: `all`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The types of the events to deliver, such as `network.created` (default: all).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// The subjects of the events to deliver, such as `otherix.evt.v1.vm.>`, in addition to `types`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// Seconds after which an event that is not acknowledged is delivered again, 1 to 3600 (default: 30).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_wait_seconds: Option<i64>,
    /// Most events that are delivered and not yet acknowledged, 1 to 1000 (default: 1000).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ack_pending: Option<i64>,
    /// Seconds without a reader after which the consumer is removed, 3600 to 31622400 (default: 2592000, 30 days).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive_seconds: Option<i64>,
}

/// A validated consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerSpec {
    pub name: ConsumerName,
    pub from: ConsumerStart,
    /// The subjects of the events to deliver, in order and without common events; empty: all.
    pub subjects: Vec<String>,
    pub ack_wait_seconds: u64,
    pub max_ack_pending: u64,
    pub inactive_seconds: u64,
}

impl ConsumerDraft {
    /// Reads a draft from a JSON object. An unknown field, or a value of the wrong type, is a violation.
    pub fn from_json(object: Map<String, Value>) -> (Self, Violations) {
        let mut violations = Violations::default();
        let mut draft = Self::default();
        for (field, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
            let v = &mut violations;
            match field.as_str() {
                "name" => draft.name = text(&field, value, v).unwrap_or_default(),
                "from" => draft.from = text(&field, value, v),
                "types" => draft.types = texts(&field, value, v).unwrap_or_default(),
                "subjects" => draft.subjects = texts(&field, value, v).unwrap_or_default(),
                "ack_wait_seconds" => draft.ack_wait_seconds = integer(&field, &value, v),
                "max_ack_pending" => draft.max_ack_pending = integer(&field, &value, v),
                "inactive_seconds" => draft.inactive_seconds = integer(&field, &value, v),
                _ => v.add(&field, "is not a field of a consumer"),
            }
        }
        (draft, violations)
    }

    /// Validates the draft.
    ///
    /// # Errors
    /// Every rule that the draft violates.
    pub fn check(&self) -> Result<ConsumerSpec, Violations> {
        let Self { name, from, types, subjects, ack_wait_seconds, max_ack_pending, inactive_seconds } = self;
        let mut violations = Violations::default();
        let v = &mut violations;
        let name = v.check("name", ConsumerName::parse(name));
        let from = from.as_deref().map_or(Some(ConsumerStart::All), |from| v.check("from", from.parse()));
        let subjects = filters(types, subjects, v);
        let ack_wait_seconds = within(ack_wait_seconds.unwrap_or(ACK_WAIT), ACK_WAIT_RANGE, "ack_wait_seconds", v);
        let max_ack_pending = within(max_ack_pending.unwrap_or(ACK_PENDING), ACK_PENDING_RANGE, "max_ack_pending", v);
        let inactive_seconds = within(inactive_seconds.unwrap_or(INACTIVE), INACTIVE_RANGE, "inactive_seconds", v);
        match (name, from, ack_wait_seconds, max_ack_pending, inactive_seconds) {
            (Some(name), Some(from), Some(ack_wait_seconds), Some(max_ack_pending), Some(inactive_seconds))
                if violations.is_empty() =>
            {
                Ok(ConsumerSpec { name, from, subjects, ack_wait_seconds, max_ack_pending, inactive_seconds })
            }
            _ => Err(violations),
        }
    }
}

fn within(value: i64, range: RangeInclusive<i64>, field: &str, violations: &mut Violations) -> Option<u64> {
    let (min, max) = (range.start(), range.end());
    let rule = || format!("must be {min} to {max}, not {value}");
    violations.check(field, u64::try_from(value).ok().filter(|_| range.contains(&value)).ok_or_else(rule))
}

/// The subjects that the filters select together.
fn filters(types: &[String], subjects: &[String], violations: &mut Violations) -> Vec<String> {
    if types.len() + subjects.len() > FILTERS_MAX {
        violations.add("subjects", format!("must have at most {FILTERS_MAX} filters, together with `types`"));
        return Vec::new();
    }
    let of_types = types.iter().filter_map(|name| violations.check("types", filter::of_type(name)));
    let mut filters: Vec<String> = of_types.collect();
    filters.extend(subjects.iter().filter_map(|subject| violations.check("subjects", filter::of_subject(subject))));
    violations.check("subjects", filter::simplified(filters)).unwrap_or_default()
}

impl ConsumerSpec {
    /// The fields in which it differs from another one, as they are in a request.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self { name, from, subjects, ack_wait_seconds, max_ack_pending, inactive_seconds } = self;
        let compared = [
            ("name", *name == other.name),
            ("from", *from == other.from),
            ("subjects", *subjects == other.subjects),
            ("ack_wait_seconds", *ack_wait_seconds == other.ack_wait_seconds),
            ("max_ack_pending", *max_ack_pending == other.max_ack_pending),
            ("inactive_seconds", *inactive_seconds == other.inactive_seconds),
        ];
        compared.into_iter().filter(|(_, is_same)| !is_same).map(|(field, _)| field).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(consumer: Value) -> Result<ConsumerSpec, Vec<String>> {
        let Value::Object(object) = consumer else { panic!("no object") };
        let (draft, violations) = ConsumerDraft::from_json(object);
        let checked = violations.combine(draft.check());
        checked.map_err(|violations| violations.iter().map(|(field, rule)| format!("{field}: {rule}")).collect())
    }

    #[test]
    fn defaults_deliver_everything() {
        let spec = checked(json!({"name": "billing"})).unwrap();
        assert_eq!((spec.from, spec.subjects.len()), (ConsumerStart::All, 0));
        assert_eq!((spec.ack_wait_seconds, spec.max_ack_pending, spec.inactive_seconds), (30, 1_000, 2_592_000));
        // What is remembered of a consumer on NATS.
        let saved = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ConsumerSpec>(&saved).unwrap(), spec);
    }

    #[test]
    fn reports_all_violations_together() {
        let consumer = json!({
            "name": "Billing!", "from": "yesterday", "types": ["network.painted", 7], "subjects": ["live.>"],
            "ack_wait_seconds": 0, "max_ack_pending": 1_001, "inactive_seconds": "30d", "deliver_subject": "x",
        });
        let expected = [
            "ack_wait_seconds: must be 1 to 3600, not 0",
            "deliver_subject: is not a field of a consumer",
            "from: must be `all`, `new`, a position or an RFC 3339 time, not `yesterday`",
            "inactive_seconds: must be an integer",
            "max_ack_pending: must be 1 to 1000, not 1001",
            "name: must be 1 to 32 of `a-z 0-9 _ -`",
            "subjects: `live.>` matches no event: the subjects of events are otherix.evt.v1.>, otherix.out.v1.>, \
             otherix.adm.v1.>",
            "types: must be a list of strings",
        ];
        assert_eq!(checked(consumer).unwrap_err(), expected);
        let many = vec!["otherix.>"; 17];
        assert_eq!(
            checked(json!({"name": "a", "subjects": many})).unwrap_err(),
            ["subjects: must have at most 16 filters, together with `types`"]
        );
    }

    #[test]
    fn types_and_subjects_are_one_list_of_filters() {
        let consumer = json!({
            "name": "a", "types": ["vm.created", "network.created"], "subjects": ["otherix.evt.v1.vm.>"],
        });
        assert_eq!(checked(consumer).unwrap().subjects, ["otherix.evt.v1.network.created.*", "otherix.evt.v1.vm.>"]);
    }

    #[test]
    fn starts_are_words_positions_or_times() {
        for text in ["all", "new", "7", "2026-01-02T03:04:05.000006Z"] {
            assert_eq!(text.parse::<ConsumerStart>().unwrap().to_string(), text);
        }
        for bad in ["", "0", "-1", "18446744073709551616", "All", "2026-01-02"] {
            assert!(bad.parse::<ConsumerStart>().is_err(), "{bad}");
        }
    }

    #[test]
    fn differences_are_named() {
        let one = checked(json!({"name": "a"})).unwrap();
        let other = checked(json!({"name": "a", "from": "new", "ack_wait_seconds": 5})).unwrap();
        assert_eq!(one.differences(&one), [""; 0]);
        assert_eq!(one.differences(&other), ["from", "ack_wait_seconds"]);
    }
}

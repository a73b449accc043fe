//! The attributes of an event that its place depends on.
//!
//! For events that do not have the form of `canonical.rs`. All of an event is parsed, so that it is JSON, but nothing
//! else of it is kept. serde's own way to ignore a value
//! looks at each byte of a text by itself; here texts are skipped as they are when they are wanted, some bytes at a
//! time.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The attributes, as they are in the event.
pub(super) struct Attributes<'a> {
    pub(super) source: &'a str,
    pub(super) sequence: &'a str,
    pub(super) type_name: &'a str,
    pub(super) time: &'a str,
    pub(super) epoch: u32,
}

impl<'de> Deserialize<'de> for Attributes<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AttributesVisitor)
    }
}

struct AttributesVisitor;

impl<'de> Visitor<'de> for AttributesVisitor {
    type Value = Attributes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes<'de>, A::Error> {
        let (mut source, mut sequence, mut type_name, mut time, mut epoch) = (None, None, None, None, None);
        while let Some(Key(key)) = map.next_key()? {
            let is_twice = match key {
                Name::Source => source.replace(map.next_value()?).is_some(),
                Name::Sequence => sequence.replace(map.next_value()?).is_some(),
                Name::Type => type_name.replace(map.next_value()?).is_some(),
                Name::Time => time.replace(map.next_value()?).is_some(),
                Name::Epoch => epoch.replace(map.next_value()?).is_some(),
                Name::Other => {
                    let Skipped = map.next_value()?;
                    false
                }
            };
            if is_twice {
                return Err(A::Error::custom(format_args!("it has an attribute twice: {key:?}")));
            }
        }
        let missing = A::Error::missing_field;
        Ok(Attributes {
            source: source.ok_or_else(|| missing("source"))?,
            sequence: sequence.ok_or_else(|| missing("sequence"))?,
            type_name: type_name.ok_or_else(|| missing("type"))?,
            time: time.ok_or_else(|| missing("time"))?,
            epoch: epoch.ok_or_else(|| missing("epoch"))?,
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Source,
    Sequence,
    Type,
    Time,
    Epoch,
    Other,
}

struct Key(Name);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an attribute")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        Ok(Key(match name {
            "source" => Name::Source,
            "sequence" => Name::Sequence,
            "type" => Name::Type,
            "time" => Name::Time,
            "epoch" => Name::Epoch,
            _ => Name::Other,
        }))
    }
}

/// Any value.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SkippedVisitor)
    }
}

struct SkippedVisitor;

impl<'de> Visitor<'de> for SkippedVisitor {
    type Value = Skipped;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_str<E>(self, _: &str) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_unit<E>(self) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Skipped, A::Error> {
        while let Some(Skipped) = seq.next_element()? {}
        Ok(Skipped)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Skipped, A::Error> {
        while let Some((Skipped, Skipped)) = map.next_entry()? {}
        Ok(Skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(text: &str) -> Result<Attributes<'_>, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn attributes_are_found_among_any_others() {
        let others = r#""x":[1,-2,1.5,null,true,{"y":"\u00e4\n"}]"#;
        let text = format!(r#"{{{others},"source":"s","type":"t","epoch":7,"sequence":"q","time":"u"}}"#);
        let Attributes { source, sequence, type_name, time, epoch } = attributes(&text).unwrap();
        assert_eq!((source, sequence, type_name, time, epoch), ("s", "q", "t", "u", 7));
        for bad in [
            text.replace(r#""epoch":7,"#, ""),
            text.replace(r#""epoch":7,"#, r#""epoch":7,"epoch":7,"#),
            text.replace(r#""epoch":7,"#, r#""epoch":"7","#),
            text.replace("null", "nul"),
            text.replace(r"\n", r"\q"),
            text.replace(r"\n", "\n"),
            format!("{text}x"),
            "[]".to_owned(),
        ] {
            assert!(attributes(&bad).is_err(), "{bad}");
        }
    }
}

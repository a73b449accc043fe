//! The attributes of an event in the form in which events are written: an object without white space, without escapes
//! in its texts, with numbers that are short and whole. One pass over such a text finds what serde_json finds.
//!
//! Whatever has another form is left to serde_json, which decides whether it is an event and says why not. So nothing
//! depends on this but speed, and what it accepts has to be what serde_json accepts, with the same values.

use super::attributes::Attributes;

/// Digits of a number that fits any type that serde_json has for it, and of one that fits 32 bits.
const DIGITS: usize = 18;
const DIGITS_32: usize = 9;

/// Values within each other: one bit each, and one more. serde_json takes 128.
const DEPTH: u32 = 30;

/// The attributes; `None` if the text has another form, or is no event.
pub(super) fn attributes(text: &str) -> Option<Attributes<'_>> {
    // Without these bytes a text ends at the next quotation mark, and has what it says.
    let is_plain = text.bytes().fold(true, |is_plain, byte| is_plain & (byte >= b' ') & (byte != b'\\'));
    if !is_plain {
        return None;
    }
    let mut rest = Rest(text);
    let (mut source, mut sequence, mut type_name, mut time, mut epoch) = (None, None, None, None, None);
    rest.skip(b'{')?;
    loop {
        let is_twice = match rest.key()? {
            "source" => source.replace(rest.text()?).is_some(),
            "sequence" => sequence.replace(rest.text()?).is_some(),
            "type" => type_name.replace(rest.text()?).is_some(),
            "time" => time.replace(rest.text()?).is_some(),
            "epoch" => epoch.replace(rest.number(DIGITS_32)?.parse().ok()?).is_some(),
            _ => {
                rest.value()?;
                false
            }
        };
        if is_twice {
            return None;
        }
        match rest.byte()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    if !rest.0.is_empty() {
        return None;
    }
    Some(Attributes { source: source?, sequence: sequence?, type_name: type_name?, time: time?, epoch: epoch? })
}

/// Where the first quotation mark is. Most are a few bytes away, and `memchr` takes longer to begin than this to find
/// them: eight bytes are compared at once.
fn quotation_mark(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        // A byte that is 0 is one that is a quotation mark; the lowest one that is found is one.
        let bits = u64::from_le_bytes(*word) ^ (ONES * u64::from(b'"'));
        let found = bits.wrapping_sub(ONES) & !bits & (ONES << 7);
        if found != 0 {
            return Some(number * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let last = rest.iter().position(|byte| *byte == b'"')?;
    Some(words.len() * 8 + last)
}

/// What follows of a text that has neither control characters nor backslashes.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.as_bytes().first().copied()
    }

    /// The next byte, which has to be one of ASCII.
    fn byte(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.0 = self.0.get(1..)?;
        Some(byte)
    }

    fn skip(&mut self, expected: u8) -> Option<()> {
        (self.byte()? == expected).then_some(())
    }

    /// A text without its quotation marks.
    fn text(&mut self) -> Option<&'a str> {
        self.skip(b'"')?;
        let end = quotation_mark(self.0.as_bytes())?;
        let (text, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..)?;
        Some(text)
    }

    /// The name of a member, and its colon.
    fn key(&mut self) -> Option<&'a str> {
        let key = self.text()?;
        self.skip(b':')?;
        Some(key)
    }

    /// A whole number that is not negative, with at most so many digits.
    fn number(&mut self, digits_max: usize) -> Option<&'a str> {
        let count = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at_checked(count)?;
        let is_number = count > 0 && count <= digits_max && (count == 1 || !digits.starts_with('0'));
        // What continues a number is no separator, and so is refused by whoever expects one.
        self.0 = rest;
        is_number.then_some(digits)
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    /// Any value.
    fn value(&mut self) -> Option<()> {
        // Below a leading 1, a bit for each open container, which is set in that of an object.
        let mut open = 1_u32;
        loop {
            match self.peek()? {
                b'"' => drop(self.text()?),
                b'{' | b'[' => {
                    let is_object = self.byte()? == b'{';
                    if self.peek()? == if is_object { b'}' } else { b']' } {
                        self.byte()?;
                    } else if open.ilog2() == DEPTH {
                        return None;
                    } else {
                        open = open << 1 | u32::from(is_object);
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'-' => {
                    self.byte()?;
                    self.number(DIGITS)?;
                }
                b'0'..=b'9' => drop(self.number(DIGITS)?),
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => return None,
            }
            // After a value: its container's next one, or the end of that, which is a value in turn.
            loop {
                if open == 1 {
                    return Some(());
                }
                let is_object = open & 1 == 1;
                match (self.byte()?, is_object) {
                    (b',', true) => drop(self.key()?),
                    (b',', false) => {}
                    (b'}', true) | (b']', false) => {
                        open >>= 1;
                        continue;
                    }
                    _ => return None,
                }
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use serde_json::Value;

    use super::*;

    type Values = (String, String, String, String, u32);

    fn values(attributes: &Attributes<'_>) -> Values {
        let Attributes { source, sequence, type_name, time, epoch } = attributes;
        let [source, sequence, type_name, time] = [source, sequence, type_name, time].map(|text| (*text).to_owned());
        (source, sequence, type_name, time, *epoch)
    }

    /// What is accepted here is accepted by serde_json, with the same values.
    fn agrees(text: &str) -> Result<bool, TestCaseError> {
        let (fast, right) = (attributes(text), serde_json::from_str::<Attributes<'_>>(text));
        let Some(fast) = fast else { return Ok(false) };
        let right = right.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(values(&fast), values(&right), "{}", text);
        prop_assert!(serde_json::from_str::<Value>(text).is_ok(), "{}", text);
        Ok(true)
    }

    fn golden() -> Vec<String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/golden");
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap().trim_end().to_owned()).collect()
    }

    #[test]
    fn what_the_control_plane_writes_has_this_form() {
        let events = golden();
        assert!(events.len() > 50);
        for event in events {
            // A text with an escape is left to serde_json.
            assert_eq!(agrees(&event).unwrap(), !event.contains('\\'), "{event}");
        }
    }

    #[test]
    fn what_looks_like_an_attribute_within_another_is_none() {
        let inner = r#"{"source":"x","epoch":9,"type":[{"sequence":"y","sequence":"z"}],"time":null}"#;
        let text = format!(r#"{{"data":{inner},"source":"s","sequence":"q","type":"t","time":"u","epoch":7}}"#);
        assert!(agrees(&text).unwrap());
        assert_eq!(attributes(&text).unwrap().epoch, 7);
        assert!(attributes(&text.replace(r#""source":"s","#, "")).is_none());
    }

    #[test]
    fn other_forms_are_left_to_serde_json() {
        let with =
            |value: &str| format!(r#"{{"source":"s","sequence":"q","type":"t","time":"u","epoch":7,"data":{value}}}"#);
        for value in ["1", "-0", "0", "\"ä\u{7f}\"", "[]", "{}", "[{},[]]", "[1,[true],{\"a\":false,\"b\":null}]"] {
            assert!(agrees(&with(value)).unwrap(), "{value}");
        }
        let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(agrees(&with(&deep(31))).unwrap());
        for value in [
            "",
            "01",
            "-",
            "1.5",
            "1e3",
            "1234567890123456789",
            "nul",
            "nulll",
            "[1,]",
            "[,1]",
            "[1 ]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1]",
            "[1}",
            "[",
            "\"",
            "\"\\u0041\"",
            "\"\t\"",
            "1}",
            "1,",
            "tru\u{e9}",
            "[] ",
            "\u{a0}",
            "[1,\"a\":2]",
            "{\"a\":1,2}",
        ] {
            assert!(!agrees(&with(value)).unwrap(), "{value}");
        }
        assert!(attributes(&with(&deep(32))).is_none() && attributes(&with(&deep(200))).is_none());
        for epoch in ["4294967295", "07", "-7", "7.0", "\"7\"", "7,\"epoch\":7"] {
            assert!(attributes(&with("1").replace('7', epoch)).is_none(), "{epoch}");
        }
        for text in ["", "{}", "[]", "null", "{", "\u{feff}{}"] {
            assert!(attributes(text).is_none(), "{text}");
        }
    }

    /// Pieces that are put into events, of which many have a meaning in JSON.
    const PIECES: [&str; 34] = [
        "\"",
        "\\",
        "\\\"",
        "\\u0041",
        "\\ud800",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\t",
        "\0",
        "0",
        "-",
        ".",
        "1e999",
        "18446744073709551616",
        "true",
        "null",
        "ä",
        "\u{7f}",
        "\u{2028}",
        "\"epoch\":1,",
        "\"time\":\"\",",
        "\"source\":null,",
        "\"type\":\"x\",",
        "\"sequence\":{\"sequence\":\"\"},",
        "\"data\":{}",
        "[[",
        "{\"\":",
        "]}",
    ];

    /// Bytes that one that is compared with others could be taken for.
    const BYTES: [u8; 10] = [0, 1, b'!', b'"', b'"' + 1, b'"' ^ 1, b'"' | 0x80, 0x7f, 0x80, 0xff];

    /// JSON of all kinds, as serde_json writes it.
    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-9_i64..1_000).prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[ -~äß]{0,12}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        let key = prop_oneof![
            select(vec!["epoch", "source", "sequence", "time", "type"]).prop_map(str::to_owned),
            "[a-z\"]{0,5}"
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            let members = prop::collection::vec((key.clone(), inner.clone()), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::from),
                members.prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Members in any order, each any number of times.
    fn event() -> impl Strategy<Value = String> {
        let name = select(vec!["source", "sequence", "type", "time", "epoch", "data", "x"]);
        let value = prop_oneof![
            4 => "[ -~]{0,9}".prop_map(|text| Value::from(text).to_string()),
            4 => any::<u32>().prop_map(|number| number.to_string()),
            4 => json().prop_map(|value| value.to_string()),
        ];
        prop::collection::vec((name, value), 0..12).prop_map(|members| {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            format!("{{{}}}", members.join(","))
        })
    }

    proptest! {
        #[test]
        fn the_first_quotation_mark_is_found(bytes in prop::collection::vec(select(BYTES.to_vec()), 0..40)) {
            prop_assert_eq!(quotation_mark(&bytes), bytes.iter().position(|byte| *byte == b'"'));
        }

        #[test]
        fn any_members_are_read_as_by_serde_json(event in event()) {
            agrees(&event)?;
        }

        #[test]
        fn any_data_is_read_as_by_serde_json(data in json(), before in any::<bool>()) {
            let head = r#""source":"s","sequence":"q","type":"t","time":"u","epoch":7"#;
            let data = format!("\"data\":{data}");
            let text = if before { format!("{{{data},{head}}}") } else { format!("{{{head},{data}}}") };
            agrees(&text)?;
        }

        #[test]
        fn altered_events_are_read_as_by_serde_json(
            which in any::<Index>(),
            edits in prop::collection::vec((any::<Index>(), 0_usize..9, select(PIECES.to_vec())), 1..4),
        ) {
            let mut text = which.get(&golden()).clone();
            for (at, removed, piece) in edits {
                let mut begin = at.index(text.len() + 1);
                while !text.is_char_boundary(begin) {
                    begin -= 1;
                }
                let mut end = (begin + removed).min(text.len());
                while !text.is_char_boundary(end) {
                    end += 1;
                }
                text.replace_range(begin..end, piece);
            }
            agrees(&text)?;
        }

        #[test]
        fn any_text_is_read_as_by_serde_json(text in "[{}\\[\\]\",:0-9a-z .-]{0,60}") {
            agrees(&text)?;
        }
    }
}

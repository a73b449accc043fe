//! Sets and maps.

use serde::{Deserialize, Serialize};

use super::expression::Verdict;
use super::value::{Answer, Bytes, Data};

/// A set or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterSet {
    /// The length of the keys.
    pub length: usize,
    /// The lengths of the parts of concatenated keys, each padded to four bytes; empty if keys are not concatenated.
    pub parts: Vec<usize>,
    /// Each key without an end begins a range, up to the next one.
    pub has_intervals: bool,
    /// Its elements could not be read, or are too many.
    pub is_unknown: bool,
    /// Ordered by key.
    pub elements: Vec<Element>,
}

/// An element of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Element {
    /// Absent if it stands for all other keys.
    pub key: Option<Data>,
    /// The last key of a range.
    pub last: Option<Data>,
    /// The range of the previous key ends before this one.
    pub is_end: bool,
    pub value: ElementValue,
}

/// What a map assigns to a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementValue {
    #[default]
    Nothing,
    Data(Data),
    Verdict(Verdict),
}

/// What a look-up finds.
pub struct Found<'a> {
    pub answer: Answer,
    /// The values that it may have found.
    pub values: Vec<&'a ElementValue>,
}

impl FilterSet {
    /// Looks up a key.
    pub fn find(&self, key: &Bytes) -> Found<'_> {
        if self.is_unknown {
            return Found {
                answer: Answer::Maybe,
                values: self.elements.iter().map(|element| &element.value).collect(),
            };
        }
        let mut values = Vec::new();
        let mut answer = Answer::No;
        for (element, next) in self.candidates(key) {
            match self.has(element, next, key) {
                Answer::Yes => return Found { answer: Answer::Yes, values: vec![&element.value] },
                Answer::Maybe => {
                    answer = Answer::Maybe;
                    values.push(&element.value);
                }
                Answer::No => {}
            }
        }
        if let Some(other) = self.elements.iter().find(|element| element.key.is_none()) {
            values.push(&other.value);
            return Found { answer: Answer::Yes, values };
        }
        Found { answer, values }
    }

    /// Returns the elements that the key may be in, each with the next one.
    fn candidates(&self, key: &Bytes) -> impl Iterator<Item = (&Element, Option<&Element>)> {
        let known = key.get().filter(|_| self.parts.len() < 2);
        let range = match known {
            Some(key) => {
                let is_before = |element: &Element| element.key.as_ref().is_none_or(|first| first.0 <= key);
                let end = self.elements.partition_point(is_before);
                // Elements with the same key, such as an end and the beginning of the next range.
                end.saturating_sub(2)..end
            }
            None => 0..self.elements.len(),
        };
        let elements = self.elements.get(range.clone()).unwrap_or_default();
        elements.iter().zip(range).map(|(element, index)| (element, self.elements.get(index + 1)))
    }

    fn has(&self, element: &Element, next: Option<&Element>, key: &Bytes) -> Answer {
        let Some(first) = element.key.as_ref().filter(|_| !element.is_end) else { return Answer::No };
        match (&element.last, next.and_then(|next| next.key.as_ref())) {
            (Some(last), _) => self.parts_within(&first.0, &last.0, key),
            (None, _) if !self.has_intervals => key.is(&first.0),
            (None, None) => key.is_within(&first.0, &vec![u8::MAX; first.0.len()]),
            (None, Some(next)) => key.is_within(&first.0, &before(&next.0)),
        }
    }

    /// Whether each part of the key is within that of a range.
    fn parts_within(&self, first: &[u8], last: &[u8], key: &Bytes) -> Answer {
        if self.parts.len() < 2 {
            return key.is_within(first, last);
        }
        let mut offset = 0;
        self.parts.iter().fold(Answer::Yes, |answer, length| {
            let part = |bytes: &[u8]| bytes.get(offset..offset + length).unwrap_or_default().to_vec();
            let within = key.slice(offset, *length).is_within(&part(first), &part(last));
            offset += length.next_multiple_of(4);
            answer.and(within)
        })
    }
}

/// Returns the key before this one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, has_borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !has_borrow {
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(key: &[u8], is_end: bool) -> Element {
        Element { key: Some(Data(key.to_vec())), is_end, ..Element::default() }
    }

    fn set(has_intervals: bool, elements: Vec<Element>) -> FilterSet {
        FilterSet { length: 4, has_intervals, elements, ..FilterSet::default() }
    }

    #[test]
    fn finds_keys_and_ranges() {
        let find = |set: &FilterSet, key: [u8; 4]| set.find(&Bytes::known(&key)).answer;
        let keys = set(false, vec![element(&[10, 0, 0, 1], false), element(&[10, 0, 0, 9], false)]);
        assert_eq!((find(&keys, [10, 0, 0, 9]), find(&keys, [10, 0, 0, 8])), (Answer::Yes, Answer::No));
        assert_eq!(keys.find(&Bytes::unknown(4)).answer, Answer::Maybe);
        let ranges = vec![
            element(&[0, 0, 0, 0], true),
            element(&[10, 0, 0, 0], false),
            element(&[11, 0, 0, 0], false),
            element(&[12, 0, 0, 0], true),
            element(&[240, 0, 0, 0], false),
        ];
        let ranges = set(true, ranges);
        for (key, expected) in [
            ([9, 255, 255, 255], Answer::No),
            ([10, 0, 0, 0], Answer::Yes),
            ([11, 0, 0, 0], Answer::Yes),
            ([11, 255, 255, 255], Answer::Yes),
            ([12, 0, 0, 0], Answer::No),
            ([255, 0, 0, 0], Answer::Yes),
        ] {
            assert_eq!(find(&ranges, key), expected, "{key:?}");
        }
    }

    #[test]
    fn finds_concatenated_ranges_and_what_stands_for_all_others() {
        let last = Some(Data(vec![10, 255, 255, 255, 0, 90, 0, 0]));
        let range = Element { last, ..element(&[10, 0, 0, 0, 0, 80, 0, 0], false) };
        let set = FilterSet { length: 8, parts: vec![4, 2], elements: vec![range], ..FilterSet::default() };
        let find = |set: &FilterSet, key: [u8; 8]| set.find(&Bytes::known(&key)).answer;
        assert_eq!(find(&set, [10, 9, 0, 0, 0, 85, 0, 0]), Answer::Yes);
        assert_eq!(find(&set, [10, 9, 0, 0, 0, 95, 0, 0]), Answer::No);
        let other = Element { value: ElementValue::Verdict(Verdict::Drop), ..Element::default() };
        let set = FilterSet { elements: vec![other], ..FilterSet::default() };
        assert_eq!(set.find(&Bytes::known(&[1])).values, [&ElementValue::Verdict(Verdict::Drop)]);
    }
}

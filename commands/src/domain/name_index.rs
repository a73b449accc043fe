//! Which resources have a name.

use std::collections::{BTreeSet, HashMap};

/// The ids of resources by the key of their name. Names are unique, except that events of an earlier version, which
/// compared names by fewer rules, may have given several resources what is one name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameIndex<Id>(HashMap<String, BTreeSet<Id>>);

impl<Id> Default for NameIndex<Id> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<Id: Copy + Ord> NameIndex<Id> {
    pub(super) fn insert(&mut self, key: String, id: Id) {
        self.0.entry(key).or_default().insert(id);
    }

    pub(super) fn remove(&mut self, key: &str, id: Id) {
        let Some(ids) = self.0.get_mut(key) else { return };
        ids.remove(&id);
        if ids.is_empty() {
            self.0.remove(key);
        }
    }

    /// Returns a resource that has the name.
    pub(super) fn get(&self, key: &str) -> Option<Id> {
        self.0.get(key).and_then(BTreeSet::first).copied()
    }
}

impl<Id: Copy + Ord> FromIterator<(String, Id)> for NameIndex<Id> {
    fn from_iter<T: IntoIterator<Item = (String, Id)>>(names: T) -> Self {
        let mut index = Self::default();
        names.into_iter().for_each(|(key, id)| index.insert(key, id));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_use_until_the_last_resource_that_has_it_is_gone() {
        let mut index: NameIndex<u8> = [("café".to_owned(), 2), ("café".to_owned(), 1)].into_iter().collect();
        assert_eq!(index.get("café"), Some(1));
        index.remove("café", 1);
        assert_eq!(index.get("café"), Some(2));
        index.remove("café", 2);
        assert_eq!((index.get("café"), index), (None, NameIndex::default()));
    }
}

//! The peers of a device, found by their key and by the index that their messages carry. Owns the indices; never uses one that
//! is in use, and a peer that is removed cannot be found any more, so that nothing of it gets in.

use std::collections::HashMap;
use std::time::Instant;

use super::key::WgPublicKey;
use super::peer::{Own, Peer};

/// A peer's place; another peer may have it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PeerId(usize);

/// Indices have 24 bits.
const INDICES: u32 = 1 << 24;

#[derive(Default)]
pub(super) struct Table {
    places: Vec<Option<Peer>>,
    free: Vec<PeerId>,
    by_key: HashMap<WgPublicKey, PeerId>,
    by_index: HashMap<u32, PeerId>,
    next_index: u32,
}

impl Table {
    /// Places, of which some may be empty.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    pub(super) fn at(&self, place: usize) -> Option<PeerId> {
        self.places.get(place)?.as_ref().map(|_| PeerId(place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.places.iter().enumerate().filter_map(|(place, peer)| Some((PeerId(place), peer.as_ref()?)))
    }

    pub(super) fn find(&self, key: &WgPublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn find_index(&self, index: u32) -> Option<PeerId> {
        self.by_index.get(&index).copied()
    }

    pub(super) fn get(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.places.get_mut(id.0)?.as_mut()
    }

    pub(super) fn add(&mut self, key: WgPublicKey) -> PeerId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            PeerId(self.places.len() - 1)
        });
        if let Some(place) = self.places.get_mut(id.0) {
            *place = Some(Peer::new(key));
        }
        self.by_key.insert(key, id);
        id
    }

    pub(super) fn remove(&mut self, id: PeerId) {
        let Some(peer) = self.places.get_mut(id.0).and_then(Option::take) else { return };
        for index in peer.indices() {
            self.by_index.remove(&index);
        }
        self.by_key.remove(&peer.key);
        self.free.push(id);
    }

    /// The peer, with handshake state of the present key. True if the state had to be made.
    pub(super) fn ready(&mut self, id: PeerId, own: &Own, now: Instant) -> Option<(&mut Peer, bool)> {
        let wants = self.places.get(id.0)?.as_ref()?.wants_state(own);
        if wants {
            let index = self.free_index()?;
            let peer = self.places.get_mut(id.0)?.as_mut()?;
            if let Some(gone) = peer.make_state(own, index, now) {
                self.by_index.remove(&gone);
            }
            self.by_index.insert(index, id);
        }
        Some((self.get(id)?, wants))
    }

    /// Drops every session.
    pub(super) fn drop_states(&mut self) {
        for peer in self.places.iter_mut().flatten() {
            peer.drop_state();
        }
        self.by_index.clear();
    }

    pub(super) fn retire(&mut self, id: PeerId, now: Instant) {
        if let Some(gone) = self.get(id).and_then(|peer| peer.retire(now)) {
            self.by_index.remove(&gone);
        }
    }

    fn free_index(&mut self) -> Option<u32> {
        if self.by_index.len() >= usize::try_from(INDICES).ok()? {
            return None;
        }
        loop {
            let index = self.next_index;
            self.next_index = (index + 1) % INDICES;
            if !self.by_index.contains_key(&index) {
                return Some(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::WgPrivateKey;

    #[test]
    fn what_is_removed_is_not_found_any_more() {
        let (own, now) = (Own::new(WgPrivateKey::generate().unwrap(), 0), Instant::now());
        let keys: Vec<WgPublicKey> = (0..3).map(|_| WgPrivateKey::generate().unwrap().public()).collect();
        let mut table = Table::default();
        let ids: Vec<PeerId> = keys.iter().map(|key| table.add(*key)).collect();
        for id in &ids {
            assert!(table.ready(*id, &own, now).unwrap().1);
            assert!(!table.ready(*id, &own, now).unwrap().1);
        }
        table.remove(ids[1]);
        assert_eq!((table.find(&keys[1]), table.find_index(1), table.iter().count()), (None, None, 2));
        // The place is given away again, the index is not.
        let again = table.add(keys[1]);
        table.ready(again, &own, now).unwrap();
        assert_eq!((again, table.find_index(1), table.find_index(3)), (ids[1], None, Some(again)));
        table.remove(again);
        table.remove(ids[0]);
        table.remove(ids[2]);
        assert!(table.by_index.is_empty() && table.by_key.is_empty());
    }

    #[test]
    fn another_key_makes_other_state() {
        let (first, now) = (Own::new(WgPrivateKey::generate().unwrap(), 0), Instant::now());
        let mut table = Table::default();
        let id = table.add(WgPrivateKey::generate().unwrap().public());
        table.ready(id, &first, now).unwrap();
        let second = Own::new(WgPrivateKey::generate().unwrap(), 1);
        assert!(table.ready(id, &second, now).unwrap().1);
        // The first had no session, so there is nothing to go on with.
        assert_eq!((table.find_index(0), table.find_index(1)), (None, Some(id)));
        table.drop_states();
        assert_eq!(table.find_index(1), None);
    }
}

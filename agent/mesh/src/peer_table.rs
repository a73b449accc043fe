//! The peers of a device, by public key and by the receiver index of their messages. Assigns the indices, each to one
//! state at a time. A removed peer is no longer found, so its messages are rejected.

use std::collections::HashMap;
use std::time::Instant;

use super::key::WgPublicKey;
use super::peer::{DevicePeer, LocalKey};

/// The slot of a peer. It may be reused after the peer was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PeerId(usize);

/// The number of indices: boringtun uses 24 bits of the receiver index.
const INDEX_COUNT: u32 = 1 << 24;

#[derive(Default)]
pub(super) struct PeerTable {
    slots: Vec<Option<DevicePeer>>,
    free: Vec<PeerId>,
    by_key: HashMap<WgPublicKey, PeerId>,
    by_index: HashMap<u32, PeerId>,
    next_index: u32,
}

impl PeerTable {
    /// The number of slots, including free ones.
    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn id_at(&self, slot: usize) -> Option<PeerId> {
        self.slots.get(slot)?.as_ref().map(|_| PeerId(slot))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, &DevicePeer)> {
        self.slots.iter().enumerate().filter_map(|(slot, peer)| Some((PeerId(slot), peer.as_ref()?)))
    }

    pub(super) fn find(&self, key: &WgPublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn find_index(&self, index: u32) -> Option<PeerId> {
        self.by_index.get(&index).copied()
    }

    pub(super) fn get(&mut self, id: PeerId) -> Option<&mut DevicePeer> {
        self.slots.get_mut(id.0)?.as_mut()
    }

    pub(super) fn add(&mut self, key: WgPublicKey) -> PeerId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            PeerId(self.slots.len() - 1)
        });
        if let Some(slot) = self.slots.get_mut(id.0) {
            *slot = Some(DevicePeer::new(key));
        }
        self.by_key.insert(key, id);
        id
    }

    pub(super) fn remove(&mut self, id: PeerId) {
        let Some(peer) = self.slots.get_mut(id.0).and_then(Option::take) else { return };
        for index in peer.indices() {
            self.by_index.remove(&index);
        }
        self.by_key.remove(&peer.key);
        self.free.push(id);
    }

    /// Returns a peer with state for the present keys, and whether the state had to be created.
    pub(super) fn get_with_state(
        &mut self,
        id: PeerId,
        local_key: &LocalKey,
        now: Instant,
    ) -> Option<(&mut DevicePeer, bool)> {
        let needs_state = self.slots.get(id.0)?.as_ref()?.needs_state(local_key);
        if needs_state {
            let index = self.free_index()?;
            let peer = self.slots.get_mut(id.0)?.as_mut()?;
            if let Some(dropped) = peer.create_state(local_key, index, now) {
                self.by_index.remove(&dropped);
            }
            self.by_index.insert(index, id);
        }
        Some((self.get(id)?, needs_state))
    }

    /// Drops the sessions of all peers.
    pub(super) fn clear_states(&mut self) {
        for peer in self.slots.iter_mut().flatten() {
            peer.clear_state();
        }
        self.by_index.clear();
    }

    pub(super) fn expire_previous(&mut self, id: PeerId, now: Instant) {
        if let Some(dropped) = self.get(id).and_then(|peer| peer.expire_previous(now)) {
            self.by_index.remove(&dropped);
        }
    }

    fn free_index(&mut self) -> Option<u32> {
        if self.by_index.len() >= usize::try_from(INDEX_COUNT).ok()? {
            return None;
        }
        loop {
            let index = self.next_index;
            self.next_index = (index + 1) % INDEX_COUNT;
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
    fn removed_peers_are_not_found() {
        let (local_key, now) = (LocalKey::new(WgPrivateKey::generate().unwrap(), 0), Instant::now());
        let keys: Vec<WgPublicKey> = (0..3).map(|_| WgPrivateKey::generate().unwrap().public()).collect();
        let mut table = PeerTable::default();
        let ids: Vec<PeerId> = keys.iter().map(|key| table.add(*key)).collect();
        for id in &ids {
            assert!(table.get_with_state(*id, &local_key, now).unwrap().1);
            assert!(!table.get_with_state(*id, &local_key, now).unwrap().1);
        }
        table.remove(ids[1]);
        assert_eq!((table.find(&keys[1]), table.find_index(1), table.iter().count()), (None, None, 2));
        // The slot is reused, the index is not.
        let again = table.add(keys[1]);
        table.get_with_state(again, &local_key, now).unwrap();
        assert_eq!((again, table.find_index(1), table.find_index(3)), (ids[1], None, Some(again)));
        table.remove(again);
        table.remove(ids[0]);
        table.remove(ids[2]);
        assert!(table.by_index.is_empty() && table.by_key.is_empty());
    }

    #[test]
    fn a_changed_private_key_creates_new_state() {
        let (first, now) = (LocalKey::new(WgPrivateKey::generate().unwrap(), 0), Instant::now());
        let mut table = PeerTable::default();
        let id = table.add(WgPrivateKey::generate().unwrap().public());
        table.get_with_state(id, &first, now).unwrap();
        let second = LocalKey::new(WgPrivateKey::generate().unwrap(), 1);
        assert!(table.get_with_state(id, &second, now).unwrap().1);
        // The first state had no session, so it is not kept as the previous one.
        assert_eq!((table.find_index(0), table.find_index(1)), (None, Some(id)));
        table.clear_states();
        assert_eq!(table.find_index(1), None);
    }
}

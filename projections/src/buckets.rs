//! The whole state at one position, as the buckets have it.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::bucket::{key_of_id, key_of_name};
use otherix_schemas::id::{NetworkId, VmId};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use uuid::Uuid;

use crate::network::query::NetworkPage;
use crate::query::{Page, QueryError};
use crate::read_models::ReadModels;
use crate::{network, node, vm};

/// The read models that are read.
const READS: &[&str] = &[network::NAME, vm::NAME, node::NAME];

/// The entries of a bucket: for each key the view, as JSON. A view is there under the resource's id and its name.
pub type Entries = BTreeMap<String, String>;

/// The state at a position.
#[derive(Clone, Debug, Default)]
pub struct StateAt {
    /// The last event that it takes into account.
    pub position: Position,
    pub networks: Entries,
    pub vms: Entries,
    pub nodes: Entries,
}

/// Why the state cannot be read.
pub type StateError = Box<dyn std::error::Error + Send + Sync>;

impl ReadModels {
    /// Reads the state, at one position.
    ///
    /// # Errors
    /// When the database fails, or a read model is being rebuilt.
    pub async fn state(&self) -> Result<StateAt, StateError> {
        let read = self.snapshot(READS, |snapshot| read(snapshot.db).map(|state| (snapshot.position, state)));
        let (position, state) = read.await??;
        Ok(StateAt { position, ..state })
    }

    /// Reads the part of the state that is about the networks and VMs of these ids, at one position. A name is not
    /// there if its resource is deleted.
    ///
    /// # Errors
    /// When the database fails, or a read model is being rebuilt.
    pub async fn state_of(&self, ids: BTreeSet<Uuid>) -> Result<StateAt, StateError> {
        let read =
            self.snapshot(READS, move |snapshot| read_of(snapshot.db, &ids).map(|state| (snapshot.position, state)));
        let (position, state) = read.await??;
        Ok(StateAt { position, ..state })
    }

    /// Waits until the state is later than at a position.
    pub async fn later_than(&self, position: Position) {
        self.reach_later(READS, position).await;
    }
}

fn read(db: &Connection) -> Result<StateAt, QueryError> {
    let page = Page { limit: u32::MAX, after: Position::ZERO };
    let networks = network::query::list(db, NetworkPage { kind: None, page })?.views;
    let vms = vm::query::list(db, page)?.views;
    let nodes = node::query::list(db, page)?.views;
    Ok(StateAt {
        position: Position::ZERO,
        networks: entries(&networks, |view| (view.id.uuid(), view.name.key(), view.deleted_at))?,
        vms: entries(&vms, |view| (view.id.uuid(), view.name.key(), view.deleted_at))?,
        nodes: entries(&nodes, |view| (view.id.uuid(), view.name.key(), None))?,
    })
}

fn read_of(db: &Connection, ids: &BTreeSet<Uuid>) -> Result<StateAt, QueryError> {
    let mut state = StateAt::default();
    for id in ids {
        if let Some(view) = network::query::listed(db, NetworkId::new(*id))? {
            let name = view.deleted_at.is_none().then(|| view.name.key());
            add(&mut state.networks, (*id, name), &view)?;
        }
        if let Some(view) = vm::query::by_id(db, VmId::new(*id))? {
            let name = view.deleted_at.is_none().then(|| view.name.key());
            add(&mut state.vms, (*id, name), &view)?;
        }
    }
    Ok(state)
}

fn add(entries: &mut Entries, (id, name): (Uuid, Option<String>), view: &impl Serialize) -> Result<(), QueryError> {
    let json = serde_json::to_string(view)?;
    entries.extend(name.map(|name| (key_of_name(&name), json.clone())));
    entries.insert(key_of_id(id), json);
    Ok(())
}

/// A name is that of the resource that is not deleted, and otherwise of the one that was deleted last.
fn entries<View: Serialize>(
    views: &[View],
    identity: impl Fn(&View) -> (Uuid, String, Option<Timestamp>),
) -> Result<Entries, QueryError> {
    let mut entries = Entries::new();
    let mut named: BTreeMap<String, (bool, Option<Timestamp>, String)> = BTreeMap::new();
    for view in views {
        let (id, name, deleted_at) = identity(view);
        let json = serde_json::to_string(view)?;
        let found = (deleted_at.is_none(), deleted_at, json.clone());
        let holder = named.entry(key_of_name(&name)).or_insert_with(|| found.clone());
        if (found.0, found.1) > (holder.0, holder.1) {
            *holder = found;
        }
        entries.insert(key_of_id(id), json);
    }
    entries.extend(named.into_iter().map(|(key, (_, _, json))| (key, json)));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_the_resource_that_exists() {
        let at = |micros| Some(Timestamp::from_unix_micros(micros).unwrap());
        let views = [(1, at(5)), (2, at(9)), (3, at(7))];
        let identity =
            |(id, deleted_at): &(u128, Option<Timestamp>)| (Uuid::from_u128(*id), "a".to_owned(), *deleted_at);
        let holder = |views: &[(u128, Option<Timestamp>)]| entries(views, identity).unwrap()["name.a"].clone();
        assert!(holder(&views).starts_with("[2,"));
        let mut with_living = views.to_vec();
        with_living.insert(1, (4, None));
        assert!(holder(&with_living).starts_with("[4,"));
        assert_eq!(entries(&with_living, identity).unwrap().len(), 5);
    }
}

//! The names of the resources that events name by id: those in the events themselves, and those that the control plane
//! still knows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use otherix_schemas::network::NetworkView;
use otherix_schemas::node::NodeView;
use otherix_schemas::vm::VmView;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::resource::{NameOrId, Resource};

/// The names by id; `None` for what the control plane does not know any more.
#[derive(Default)]
pub(super) struct Names(BTreeMap<Uuid, Option<String>>);

/// The resources whose names are looked up, by the field that has their id.
const LOOKED_UP: [&str; 4] = ["network_id", "vm_id", "node_id", "from_node_id"];

impl Names {
    /// The name, or the id.
    pub(super) fn name(&self, id: &str) -> String {
        let name = id.parse().ok().and_then(|id: Uuid| self.0.get(&id)).and_then(Option::as_deref);
        name.unwrap_or(id).to_owned()
    }

    /// Learns the names that events tell, and looks up those that they do not. While the control plane does not answer,
    /// these are left out.
    pub(super) async fn learn(&mut self, events: &[Value], client: &mut ControlPlaneClient) {
        for data in events.iter().filter_map(|event| event.get("data")?.as_object()) {
            self.learn_from(data);
        }
        let mut unknown = BTreeMap::new();
        for event in events {
            collect(event.get("data").unwrap_or(&Value::Null), &mut unknown);
        }
        for (id, field) in unknown {
            if let Entry::Vacant(unknown) = self.0.entry(id) {
                let name = match field {
                    "network_id" => look_up::<NetworkView>(id, client).await,
                    "vm_id" => look_up::<VmView>(id, client).await,
                    _ => look_up::<NodeView>(id, client).await,
                };
                let Ok(name) = name else { return };
                unknown.insert(name);
            }
        }
    }

    /// An event about a resource has its id first and its name beside it.
    fn learn_from(&mut self, data: &Map<String, Value>) {
        let Some(name) = data.get("name").and_then(Value::as_str) else { return };
        for field in ["network_id", "vm_id", "node_id", "user_id", "token_id"] {
            if let Some(id) = data.get(field).and_then(id) {
                self.0.insert(id, Some(name.to_owned()));
                return;
            }
        }
    }
}

fn id(value: &Value) -> Option<Uuid> {
    value.as_str()?.parse().ok()
}

/// Collects the ids of resources whose names can be looked up, each with its field.
fn collect(value: &Value, ids: &mut BTreeMap<Uuid, &'static str>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, ids)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (LOOKED_UP.into_iter().find(|field| field == name), id(value)) {
                    (Some(field), Some(id)) => drop(ids.insert(id, field)),
                    _ => collect(value, ids),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

async fn look_up<R: Resource>(id: Uuid, client: &mut ControlPlaneClient) -> Result<Option<String>, Failure> {
    client.renew();
    match NameOrId::Id(id).look_up::<R>(client).await {
        Ok(view) => Ok(Some(view.name().to_owned())),
        Err(failure) if failure.exit == Exit::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_of_resources_are_found_at_any_depth() {
        let [network, node, nic] = [1, 2, 3].map(Uuid::from_u128);
        let data = json!({
            "node_id": node, "sequence": 1,
            "results": [{ "network_id": network, "nic_id": null }, { "network_id": null, "nic_id": nic }],
        });
        let mut ids = BTreeMap::new();
        collect(&data, &mut ids);
        assert_eq!(ids, BTreeMap::from([(network, "network_id"), (node, "node_id")]));
    }

    #[test]
    fn names_are_learnt_from_the_resources_own_events() {
        let [vm, node] = [1, 2].map(Uuid::from_u128);
        let mut names = Names::default();
        let created = json!({ "vm_id": vm, "name": "web-1", "node_id": node });
        names.learn_from(created.as_object().unwrap());
        assert_eq!(names.name(&vm.to_string()), "web-1");
        assert_eq!(names.name(&node.to_string()), node.to_string());
    }
}

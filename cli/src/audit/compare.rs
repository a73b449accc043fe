//! Compares what the control plane answers about networks, VMs and nodes with what the events give: its history with
//! read models made of the verified events, at their position, and what it answers now with its history. Commands may
//! go on meanwhile.

use otherix_schemas::error::ErrorCode;
use otherix_schemas::network::{NetworkPageRequest, NetworkView};
use otherix_schemas::node::NodeView;
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, AsOf, PAGE_MAX, PageRequest, RequestType};
use otherix_schemas::vm::VmView;
use serde::Serialize;
use serde_json::{Map, Value};

use super::sequence::Fault;
use crate::client::ControlPlaneClient;
use crate::failure::Failure;
use crate::output::Printer;
use crate::resource::Resource;
use crate::resource::list::all_pages;

/// Longest value in a message.
const SHOWN_MAX: usize = 200;

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Compared {
    pub(super) position: Position,
    pub(super) networks: usize,
    pub(super) vms: usize,
    pub(super) nodes: usize,
}

/// A control plane, and read models of its events up to a position.
pub(super) struct Comparison<'a> {
    pub(super) live: &'a mut ControlPlaneClient,
    pub(super) replayed: &'a mut ControlPlaneClient,
    pub(super) position: Position,
    pub(super) printer: &'a mut Printer,
}

impl Comparison<'_> {
    /// Compares every network, VM and node.
    pub(super) async fn run(&mut self) -> Result<Compared, Failure> {
        let networks = |PageRequest { limit, cursor }| NetworkPageRequest { kind: None, limit, cursor };
        let networks = self.of_kind::<NetworkView>(networks).await?;
        let vms = self.of_kind::<VmView>(|page| page).await?;
        let nodes = self.of_kind::<NodeView>(|page| page).await?;
        self.printer.end_progress();
        Ok(Compared { position: self.position, networks, vms, nodes })
    }

    async fn of_kind<R: Resource>(
        &mut self,
        request: impl Fn(PageRequest) -> <R::List as RequestType>::Body,
    ) -> Result<usize, Failure> {
        let at = self.position;
        let expected = all_pages::<R>(self.replayed, &request).await?;
        self.live.look_at(Some(AsOf::Position(at)));
        let history = all_pages::<R>(self.live, &request).await?;
        same_lists(&expected, &history, &of_history(at))?;
        for (number, view) in expected.iter().enumerate() {
            let done = u64::try_from(number).unwrap_or(u64::MAX);
            self.printer.progress(done, expected.len() as u64, &format!("comparing {}s", R::NOUN));
            let expected = get::<R>(self.replayed, view).await?.map(|answer| answer.data);
            self.live.look_at(Some(AsOf::Position(at)));
            let history = get::<R>(self.live, view).await?.map(|answer| answer.data);
            same(view, expected.as_ref(), history.as_ref(), &of_history(at))?;
        }
        self.now::<R>(request).await?;
        Ok(expected.len())
    }

    /// Compares what is answered now, whose positions are in the answers, with the history.
    async fn now<R: Resource>(
        &mut self,
        request: impl Fn(PageRequest) -> <R::List as RequestType>::Body,
    ) -> Result<(), Failure> {
        let limit = i64::try_from(PAGE_MAX).ok();
        let mut cursor = None;
        loop {
            let page = || request(PageRequest { limit, cursor: cursor.clone() });
            self.live.renew();
            self.live.look_at(None);
            let now = self.live.call::<R::List>(&page()).await?;
            let at = now.meta.position;
            self.live.renew();
            self.live.look_at(Some(AsOf::Position(at)));
            let history = self.live.call::<R::List>(&page()).await?;
            same_lists(&history.data, &now.data, &of_now(at))?;
            for view in &now.data {
                self.one_now::<R>(view, &page()).await?;
            }
            cursor = now.meta.next_cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn one_now<R: Resource>(&mut self, view: &R, page: &<R::List as RequestType>::Body) -> Result<(), Failure> {
        self.live.look_at(None);
        let now = get::<R>(self.live, view).await?;
        // An answer that there is none has no position: it was not later than that of the next one.
        let at = match &now {
            Some(answer) => answer.meta.position,
            None => self.live.call::<R::List>(page).await?.meta.position,
        };
        self.live.look_at(Some(AsOf::Position(at)));
        let history = get::<R>(self.live, view).await?.map(|answer| answer.data);
        same(view, history.as_ref(), now.map(|answer| answer.data).as_ref(), &of_now(at))
    }
}

fn of_history(at: Position) -> [String; 2] {
    [format!("the history of the control plane at position {at}"), "the events give".to_owned()]
}

fn of_now(at: Position) -> [String; 2] {
    [format!("the read models of the control plane at position {at}"), "its history has".to_owned()]
}

/// The same resource again, with all that `get` shows; `None` if there is none.
async fn get<R: Resource>(client: &mut ControlPlaneClient, view: &R) -> Result<Option<Answer<R>>, Failure> {
    client.renew();
    match client.call::<R::Get>(&R::by_id(view.id())).await {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.body.error.code == ErrorCode::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn same_lists<R: Resource>(expected: &[R], found: &[R], names: &[String; 2]) -> Result<(), Failure> {
    for (number, view) in expected.iter().enumerate() {
        let other = found.get(number).filter(|other| other.id() == view.id());
        match other {
            Some(other) => same(view, Some(view), Some(other), names)?,
            None => same(view, Some(view), None, names)?,
        }
    }
    match found.get(expected.len()) {
        Some(view) => same(view, None, Some(view), names),
        None => Ok(()),
    }
}

/// Compares what is expected of a resource with what was found. `names` are who has the latter, and whence the former.
fn same<R: Resource>(
    view: &R,
    expected: Option<&R>,
    found: Option<&R>,
    [whose, expectation]: &[String; 2],
) -> Result<(), Failure> {
    let difference = match (expected, found) {
        (None, None) => return Ok(()),
        (Some(_), None) => format!("{whose}: it is missing, and {expectation} it"),
        (None, Some(_)) => format!("{whose}: it is there, and {expectation} none"),
        (Some(expected), Some(found)) => {
            let Some([path, expected, found]) = difference(&json(expected), &json(found)) else { return Ok(()) };
            format!("{whose}: `{path}` is {found}, and {expectation} {expected}")
        }
    };
    Err(Fault::somewhere(format!("{} `{}` ({}): {difference}", R::NOUN, view.name(), view.id())).into())
}

/// A view without what is in no event: what heartbeats told of a node's peers.
fn json<R: Resource>(view: &R) -> Value {
    // Serialisation fails only for maps with keys that are not strings, of which there are none.
    let mut json = serde_json::to_value(view).unwrap_or_default();
    let peers = json.pointer_mut("/mesh/peers").and_then(Value::as_array_mut);
    for peer in peers.into_iter().flatten().filter_map(Value::as_object_mut) {
        for told in ["established", "last_handshake_at", "rx_bytes", "tx_bytes"] {
            peer.remove(told);
        }
    }
    json
}

/// Where two values differ first, and what each has there.
fn difference(expected: &Value, found: &Value) -> Option<[String; 3]> {
    let within = |key: &str, expected: &Value, found: &Value| {
        difference(expected, found).map(|[path, expected, found]| [format!("/{key}{path}"), expected, found])
    };
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let of = |map: &Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or_default();
            let keys = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key)));
            keys.into_iter().find_map(|key| within(key, &of(expected, key), &of(found, key)))
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let pairs = expected.iter().zip(found).enumerate();
            pairs.into_iter().find_map(|(number, (expected, found))| within(&number.to_string(), expected, found))
        }
        _ if expected == found => None,
        _ => Some([String::new(), shown(expected), shown(found)]),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_MAX { text } else { text.chars().take(SHOWN_MAX).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn the_first_difference_is_found() {
        let cases = [
            (json!({"a": 1, "b": [1, {"c": null}]}), json!({"a": 1, "b": [1, {"c": null}]}), None),
            (json!({"a": 1, "b": [1, {"c": 2}]}), json!({"a": 1, "b": [1, {"c": 3}]}), Some("/b/1/c 2 3")),
            (json!({"a": 1}), json!({"a": 1, "x": true}), Some("/x null true")),
            (json!({"a": [1]}), json!({"a": []}), Some("/a [1] []")),
            (json!(1), json!("1"), Some(" 1 \"1\"")),
        ];
        for (expected, found, difference) in cases {
            let is = super::difference(&expected, &found).map(|parts| parts.join(" "));
            assert_eq!(is.as_deref(), difference, "{expected} {found}");
        }
    }
}

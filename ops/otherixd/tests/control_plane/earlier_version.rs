//! A journal of an earlier version: this version opens, verifies and relays it, and returns the same views.

use std::fs;
use std::path::Path;

use otherix_testkit::python::nats_py;
use otherix_testkit::tempdir;
use serde_json::{Value, json};

use super::daemon::{OtherixdProcess, tool};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../commands/tests/fixtures/v0.1");

/// Queries every list and each of its resources without otherix code; prints the form of the fixture's `views.json`.
const QUERIES: &str = r#"
import asyncio, json, sys
import creds, nats

async def main():
    url, credentials = sys.argv[1:]
    client = await nats.connect(url, **creds.options(credentials))
    requests = f"otherix.req.v1.{creds.user(credentials)}."

    async def call(request, body):
        reply = await client.request(requests + request, json.dumps(body).encode(), timeout=5)
        assert "Nats-Service-Error" not in (reply.headers or {}), reply.data
        return json.loads(reply.data)["data"]

    views = {}
    for resource in ("network", "vm", "node"):
        listed = await call(resource + ".list", {"limit": 200})
        views[resource] = {
            "list": listed,
            "get": [await call(resource + ".get", {"id": view["id"]}) for view in listed],
        }
    print(json.dumps(views))
    await client.close()

asyncio.run(main())
"#;

/// Removes the fields that later versions have added to views, each of which says that there is no such thing.
fn remove_added(views: &mut Value) {
    let nothing = json!(false);
    let mut added = vec![("dhcp", nothing.clone()), ("dns", nothing.clone()), ("allow_spoofing", nothing)];
    added.extend([("ip", Value::Null), ("machine", Value::Null)]);
    match views {
        Value::Array(views) => views.iter_mut().for_each(remove_added),
        Value::Object(fields) => {
            fields.retain(|name, value| !added.iter().any(|(added, nothing)| name == added && value == nothing));
            fields.values_mut().for_each(remove_added);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn reads_journal_of_version_0_1() {
    let folder = tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    fs::copy(Path::new(FIXTURE).join("journal.db"), &journal).unwrap();
    let mut daemon = OtherixdProcess::start_in(folder, &[]).await;

    let credentials = daemon.credentials("admin");
    let output = nats_py(QUERIES, &[&daemon.url().await, credentials.to_str().unwrap()]).await;
    let mut actual: Value = serde_json::from_str(&output).unwrap();
    remove_added(&mut actual);
    let expected: Value = serde_json::from_slice(&fs::read(Path::new(FIXTURE).join("views.json")).unwrap()).unwrap();
    for resource in ["network", "vm", "node"] {
        assert_eq!(actual[resource], expected[resource], "{resource}");
    }
    daemon.assert_stream_is_copy().await;
    daemon.stop().await;

    let (verified, _, stderr) = tool(daemon.state(), &["journal", "verify"]).await;
    assert!(verified, "{stderr}");
}

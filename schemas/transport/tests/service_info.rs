//! `$SRV.INFO` of the services, received by an independent client: each endpoint documents its request.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::time::Duration;

use otherix_schemas::request::{Request, ServiceKind};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::python::nats_py;
use otherix_transport::service::{Connections, RequestServer};
use otherix_transport::{Connection, Credentials, Nats, NatsEndpoint};
use serde_json::Value;
use tokio::sync::watch;

/// Prints the replies to `$SRV.INFO` of the service: one for each connection on which it receives requests.
const INFO: &str = "
import asyncio, json, sys
import nats

async def main(url, service, connections):
    client = await nats.connect(url)
    # A query that expects no reply does not end the answering.
    await client.publish(f'$SRV.INFO.{service}')
    replies = await client.subscribe(client.new_inbox())
    await client.publish(f'$SRV.INFO.{service}', reply=replies.subject)
    infos = [json.loads((await replies.next_msg(timeout=5)).data) for _ in range(int(connections))]
    print(json.dumps(infos))
    await client.close()

asyncio.run(main(*sys.argv[1:]))
";

async fn infos(server: &NatsServer, service: ServiceKind) -> Vec<Value> {
    let credentials = Credentials::password("control".parse().unwrap(), "");
    let endpoint = NatsEndpoint::new(server.url(), credentials);
    let connect = async || Connection::from(Nats::once(&endpoint, "test", Duration::from_secs(10)).await.unwrap());
    let connections =
        Connections { people: connect().await, nodes: connect().await, observer: std::sync::Arc::new(|_| {}) };
    let _requests = RequestServer::start(&connections, service, watch::Sender::default().subscribe()).await.unwrap();
    connections.people.settled().await.unwrap();
    connections.nodes.settled().await.unwrap();
    // Nodes make no requests that nodes answer.
    let connections = if service == ServiceKind::Nodes { "1" } else { "2" };
    serde_json::from_str(&nats_py(INFO, &[&server.url(), service.name(), connections]).await).unwrap()
}

#[tokio::test]
async fn endpoints_document_their_requests() {
    let server = NatsServer::start();
    for service in ServiceKind::ALL {
        let infos = infos(&server, service).await;
        assert!(infos.iter().all(|info| info["description"] == service.description()));
        let endpoints: Vec<&Value> = infos.iter().flat_map(|info| info["endpoints"].as_array().unwrap()).collect();
        assert_eq!(endpoints.len(), service.requests().count());
        for request in service.requests() {
            let Request { name, summary, description, permission, .. } = request;
            let subject = format!("otherix.req.v1.*.{name}");
            let endpoint = endpoints.iter().find(|endpoint| endpoint["subject"] == subject.as_str()).unwrap();
            let metadata = &endpoint["metadata"];
            assert_eq!(metadata["summary"], summary);
            assert_eq!(metadata["description"], description);
            assert_eq!(metadata["permission"], permission.as_str());
            assert_eq!(metadata["request_schema"], format!("urn:otherix:schema:{name}.request"));
            assert_eq!(metadata["answer_schema"], format!("urn:otherix:schema:{name}.answer"));
            assert_eq!(metadata["error_schema"], "urn:otherix:schema:error");
        }
    }
}

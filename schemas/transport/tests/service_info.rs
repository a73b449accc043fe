//! `$SRV.INFO` of the services, received by an independent client: each endpoint documents its request.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::time::Duration;

use otherix_schemas::request::{Request, ServiceKind};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::python::nats_py;
use otherix_transport::service::RequestServer;
use otherix_transport::{Connection, Credentials, Nats, NatsEndpoint};
use serde_json::Value;

/// Prints the reply to `$SRV.INFO` of the service.
const INFO: &str = "
import asyncio, sys
import nats

async def main(url, service):
    client = await nats.connect(url)
    reply = await client.request(f'$SRV.INFO.{service}', timeout=5)
    print(reply.data.decode())
    await client.close()

asyncio.run(main(*sys.argv[1:]))
";

async fn info(server: &NatsServer, service: ServiceKind) -> Value {
    let credentials = Credentials { user: "control".parse().unwrap(), password: String::new() };
    let endpoint = NatsEndpoint { url: server.url(), credentials };
    let connection = Connection::from(Nats::once(&endpoint, "test", Duration::from_secs(10)).await.unwrap());
    let _requests = RequestServer::start(&connection, service).await.unwrap();
    serde_json::from_str(&nats_py(INFO, &[&server.url(), service.name()]).await).unwrap()
}

#[tokio::test]
async fn endpoints_document_their_requests() {
    let server = NatsServer::start();
    for service in ServiceKind::ALL {
        let info = info(&server, service).await;
        assert_eq!(info["description"], service.description());
        let endpoints = info["endpoints"].as_array().unwrap();
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

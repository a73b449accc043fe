//! The context of this machine's own control plane: `context.json` in the state folder, in the format of the `nats`
//! tool. With it, `otherix` finds address, credentials and CA where it runs as the owner of the state folder.

use std::path::Path;

use otherix_schemas::subject::EVENTS_DOMAIN;
use otherix_transport::TrustedCa;
use otherix_transport::nats::ServerAddress;
use serde_json::json;

use crate::first_admin::CREDENTIALS;
use crate::nats::{NatsError, write_private};

/// The file's name in the state folder.
const FILE: &str = "context.json";

/// Writes the context of a server at `url`, whose certificate is from `ca`.
pub(crate) fn write(state: &Path, url: &str, ca: Option<&TrustedCa>) -> Result<(), NatsError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let credentials = Some(absolute(&state.join(CREDENTIALS))).filter(|path| path.exists());
    let port = ServerAddress::parse_list(url).ok().and_then(|list| list.first().map(|address| address.port));
    // A certificate that an operator brings need not be for the address.
    let url = match ca.and_then(TrustedCa::name).zip(port) {
        Some((name, port)) => format!("nats://{name}:{port}"),
        None => url.to_owned(),
    };
    let context = json!({
        "description": "the control plane of this machine",
        "url": url,
        "creds": credentials,
        "ca": ca.and_then(TrustedCa::path).map(absolute),
        "jetstream_domain": EVENTS_DOMAIN,
    });
    write_private(&state.join(FILE), format!("{context:#}\n").as_bytes())
}

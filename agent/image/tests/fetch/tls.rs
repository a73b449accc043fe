//! `https`.

use std::sync::Arc;

use otherix_image::fetch::{FetchError, FetchSettings};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::server::{Connection, Request, Server};
use crate::{Download, content, settings};

/// A server with a certificate of its own for `localhost`, and the certificate in PEM.
fn start(handler: impl Fn(&Request, &mut Connection) + Send + Sync + 'static) -> (Server, String) {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let wrap = move |stream| -> Box<dyn crate::server::Stream> {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        Box::new(rustls::StreamOwned::new(connection, stream))
    };
    (Server::start_at("127.0.0.1".parse().unwrap(), wrap, handler), issued.cert.pem())
}

#[test]
fn certificates_are_verified() {
    let image = content(500_000);
    let body = image.clone();
    let (server, ca) = start(move |_, connection| connection.respond("200 OK", "", &body));
    let url = |host: &str| format!("https://{host}:{}/", server.port());
    let lookup = Arc::new(Localhost);
    let settings = FetchSettings { lookup, ..settings() };
    let error = Download::new(settings.clone()).fetch(&url("localhost")).unwrap_err();
    assert!(matches!(error, FetchError::Certificate { .. }) && !error.is_transient(), "{error:?}");
    let trusting = FetchSettings { ca: Some(ca.into()), ..settings.clone() };
    Download::new(trusting.clone()).brings(&url("localhost"), &image);
    let error = Download::new(trusting).fetch(&url("other.example")).unwrap_err();
    assert!(matches!(error, FetchError::Certificate { .. }), "{error:?}");
    let no_certificate = FetchSettings { ca: Some(b"none".to_vec()), ..settings };
    assert!(matches!(Download::new(no_certificate).fetch(&url("localhost")), Err(FetchError::Ca(_))));
}

#[test]
fn from_https_no_redirect_leads_to_http() {
    let plain = Server::start(|_, connection| connection.respond("200 OK", "", b"image"));
    let target = plain.url("");
    let (server, ca) = start(move |request, connection| match request.path.as_str() {
        "/down" => connection.redirect(&target),
        "/same" => connection.redirect("/image"),
        _ => connection.respond("200 OK", "", b"image"),
    });
    let secure = server.port();
    let up = Server::start(move |_, connection| connection.redirect(&format!("https://localhost:{secure}/image")));
    let settings = FetchSettings { lookup: Arc::new(Localhost), ca: Some(ca.into()), ..settings() };
    let error = Download::new(settings.clone()).fetch(&format!("https://localhost:{secure}/down")).unwrap_err();
    assert!(matches!(error, FetchError::Downgrade { .. }), "{error:?}");
    assert!(plain.requests().is_empty());
    for url in [format!("https://localhost:{secure}/same"), up.url("")] {
        Download::new(settings.clone()).brings(&url, b"image");
    }
}

/// A name server that knows one address.
#[derive(Debug)]
struct Localhost;

impl otherix_image::fetch::Lookup for Localhost {
    fn lookup(&self, _host: &str, _timeout: std::time::Duration) -> std::io::Result<Vec<std::net::IpAddr>> {
        Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()])
    }
}

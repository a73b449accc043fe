//! Metrics and health over HTTP: `/metrics` as Prometheus reads it, `/healthz`, `/readyz`.
//!
//! There is neither encryption nor a password: it is for an address that only the monitoring reaches.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::process::ProcessMetrics;

/// Connections that are served at once; others wait.
const CONNECTIONS: usize = 16;

/// How long a client may take for its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// Pause after a connection could not be accepted: no file is left, for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The type of what [`text::encode`] writes.
const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Where a program tells its metrics.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct MetricsArgs {
    /// The address and port of an HTTP endpoint with /metrics (for Prometheus), /healthz and /readyz, without
    /// encryption or password; none when absent
    #[arg(long, value_name = "ADDRESS:PORT", env = "OTHERIX_METRICS")]
    pub metrics: Option<SocketAddr>,
}

/// The endpoint cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address} for requests for metrics (--metrics): {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Brings metrics that are measured rather than counted up to date, and returns what the program is not ready for;
/// nothing if it is ready.
pub type Measure = Arc<dyn Fn() -> BoxFuture<'static, Vec<String>> + Send + Sync>;

/// Metrics and health of a program.
pub struct Endpoint {
    listener: TcpListener,
    content: Content,
}

#[derive(Clone)]
struct Content {
    registry: Arc<Registry>,
    measure: Measure,
}

/// Metrics of a program, with those of its process. Their names begin with `otherix`.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessMetrics::new()));
    registry
}

impl Endpoint {
    /// Listens at an address.
    ///
    /// # Errors
    /// If that is not possible.
    pub async fn listen(address: SocketAddr, registry: Registry, measure: Measure) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address).await.map_err(|source| ListenError { address, source })?;
        Ok(Self { listener, content: Content { registry: Arc::new(registry), measure } })
    }

    /// The address at which it listens.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let Self { listener, content } = self;
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    let content = content.clone();
                    connections.spawn(async move {
                        serve(stream, content).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a request for metrics");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// Answers one request of a connection. A client that is too slow, or none of HTTP, is cut off.
async fn serve(stream: TcpStream, content: Content) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let content = content.clone();
        async move { content.answer(request.method(), request.uri().path()).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(REQUEST_WITHIN)
        .serve_connection(TokioIo::new(stream), answer);
    if let Ok(Err(error)) = tokio::time::timeout(2 * REQUEST_WITHIN, connection).await {
        tracing::debug!(%error, "a request for metrics failed");
    }
}

impl Content {
    async fn answer(&self, method: &Method, path: &str) -> Result<Response<Full<Bytes>>, std::fmt::Error> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is possible\n".to_owned()));
        }
        match path {
            "/metrics" => {
                let _told_elsewhere = (self.measure)().await;
                let mut body = String::new();
                text::encode(&mut body, &self.registry)?;
                let mut response = plain(StatusCode::OK, body);
                response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
                Ok(response)
            }
            // Whoever reads this has an answer from the thread that does the work.
            "/healthz" => Ok(plain(StatusCode::OK, "ok\n".to_owned())),
            "/readyz" => {
                let missing = (self.measure)().await;
                if missing.is_empty() {
                    return Ok(plain(StatusCode::OK, "ready\n".to_owned()));
                }
                Ok(plain(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n"))
            }
            _ => Ok(plain(StatusCode::NOT_FOUND, "/metrics, /healthz and /readyz are here\n".to_owned())),
        }
    }
}

fn plain(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn endpoint(missing: &'static [&'static str]) -> SocketAddr {
        let mut registry = registry();
        let counter = Counter::<u64>::default();
        counter.inc();
        registry.register("otherix_tests", "Tests that ran", counter);
        let measure: Measure = Arc::new(move || {
            let missing = missing.iter().map(|text| (*text).to_owned()).collect();
            Box::pin(async move { missing })
        });
        let endpoint = Endpoint::listen("127.0.0.1:0".parse().unwrap(), registry, measure).await.unwrap();
        let address = endpoint.address().unwrap();
        tokio::spawn(endpoint.run());
        address
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_and_health_are_answered() {
        let address = endpoint(&[]).await;
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let metrics = ask(address, &get("/metrics")).await;
        for line in ["otherix_tests_total 1\n", "# TYPE process_cpu_seconds counter\n", "process_open_fds ", "# EOF"] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.contains("application/openmetrics-text"));
        assert!(ask(address, &get("/healthz")).await.ends_with("\r\n\r\nok\n"));
        assert!(ask(address, &get("/readyz")).await.ends_with("\r\n\r\nready\n"));
        assert!(ask(address, &get("/secrets")).await.starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\nHost: test\r\n\r\n").await.starts_with("HTTP/1.1 405 "));
        assert!(ask(address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    }

    #[tokio::test]
    async fn whoever_is_not_ready_says_for_what() {
        let address = endpoint(&["not connected", "9 events behind"]).await;
        let answer = ask(address, "GET /readyz HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 503 ") && answer.ends_with("\r\n\r\nnot connected\n9 events behind\n"));
    }

    /// Clients that say nothing take all connections; they are cut off, and the next is answered.
    #[tokio::test(start_paused = true)]
    async fn silent_clients_do_not_keep_others_out() {
        let address = endpoint(&[]).await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(ask(address, "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").await.ends_with("ok\n"));
    }
}

//! An HTTP server whose responses a test writes byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Turns a connection into one with TLS, say.
pub(crate) type Wrap = dyn Fn(TcpStream) -> Box<dyn Stream> + Send + Sync;

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The position from which on bytes are asked for.
    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A connection on which a request has arrived. Writing to a client that has gone is no failure.
pub(crate) struct Connection(BufReader<Box<dyn Stream>>);

impl Connection {
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let stream = self.0.get_mut();
        stream.write_all(bytes.as_ref()).and_then(|()| stream.flush()).is_ok()
    }

    /// A response with a length, and that many bytes.
    pub(crate) fn respond(&mut self, status: &str, headers: &str, body: &[u8]) {
        self.write(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len()));
        self.write(body);
    }

    pub(crate) fn redirect(&mut self, to: &str) {
        self.respond("302 Found", &format!("Location: {to}\r\n"), b"");
    }

    /// Sends nothing until the client closes the connection.
    pub(crate) fn stall(&mut self) {
        let mut rest = Vec::new();
        // A connection that was reset is closed, too.
        let _closed = self.0.read_to_end(&mut rest);
    }

    fn read_request(&mut self) -> Option<Request> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let path = lines.first()?.split(' ').nth(1)?.to_owned();
        let headers = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
        Some(Request { path, headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() })
    }
}

/// Runs until it is dropped. Each connection carries one request.
pub(crate) struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<Request>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request, &mut Connection) + Send + Sync + 'static) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), |stream| Box::new(stream), handler)
    }

    pub(crate) fn start_at(
        address: IpAddr,
        wrap: impl Fn(TcpStream) -> Box<dyn Stream> + Send + Sync + 'static,
        handler: impl Fn(&Request, &mut Connection) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (stopped, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (handler, wrap): (Arc<_>, Arc<Wrap>) = (Arc::new(handler), Arc::new(wrap));
        let (is_stopped, log) = (Arc::clone(&stopped), Arc::clone(&requests));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, wrap, log) = (Arc::clone(&handler), Arc::clone(&wrap), Arc::clone(&log));
                thread::spawn(move || {
                    let mut connection = Connection(BufReader::new(wrap(stream)));
                    if let Some(request) = connection.read_request() {
                        log.lock().unwrap().push(request.clone());
                        handler(&request, &mut connection);
                    }
                });
            }
        });
        Self { address, stopped, requests, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port())
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

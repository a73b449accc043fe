//! Forwards connections from a port on the host's loopback into the lab. The process inherits the listening socket,
//! which stays in the host's namespace, and then enters the lab's, where its connections originate.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use crate::error::LabError;
use crate::namespace::{self, CONTROL};

/// Port of NATS in the lab.
pub(crate) const NATS_PORT: u16 = 4222;

/// Time-out for a connection into the lab.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed `accept`, which happens with too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves the listening socket on standard input until it is killed.
pub(crate) fn serve(namespace: &str) -> Result<(), LabError> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned().map_err(LabError::Accept)?);
    listener.local_addr().map_err(LabError::Accept)?;
    namespace::enter(namespace)?;
    loop {
        match listener.accept() {
            Ok((client, _)) => forward(client),
            Err(_) => thread::sleep(ACCEPT_RETRY),
        }
    }
}

/// Forwards one connection on two separate threads. A failure closes that connection only.
fn forward(client: TcpStream) {
    let _connection_is_dropped_on_failure = thread::Builder::new().spawn(move || {
        let Ok(address) = format!("{CONTROL}:{NATS_PORT}").parse() else {
            return;
        };
        let Ok(server) = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) else {
            return;
        };
        let _only_an_optimisation = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        let (Ok(from_server), Ok(to_client)) = (server.try_clone(), client.try_clone()) else {
            return;
        };
        let back = thread::Builder::new().spawn(move || copy(from_server, to_client));
        if back.is_ok() {
            copy(client, server);
        }
    });
}

/// Copies until end of file, then shuts down the sink's sending side.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _either_end_closed = io::copy(&mut from, &mut to);
    let _closed_already = to.shutdown(Shutdown::Write);
}

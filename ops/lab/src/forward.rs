//! Carries connections from one port on the host's loopback into the lab. It inherits the listening socket, which stays
//! in the host's namespace, and then moves into the lab's, where it connects.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use crate::error::LabError;
use crate::namespace::{self, CONTROL};

/// Where clients of NATS connect in the lab.
pub(crate) const NATS_PORT: u16 = 4222;

/// How long a connection into the lab may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Pause after a connection could not be accepted: there may be too many.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serves the listening socket on standard input until it is killed.
pub(crate) fn serve(namespace: &str) -> Result<(), LabError> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned().map_err(LabError::Accept)?);
    listener.local_addr().map_err(LabError::Accept)?;
    namespace::enter(namespace)?;
    loop {
        match listener.accept() {
            Ok((client, _)) => carry(client),
            Err(_) => thread::sleep(ACCEPT_AGAIN),
        }
    }
}

/// Carries one connection on threads of its own. A failure ends that connection only: its client sees it closed.
fn carry(client: TcpStream) {
    let _client_sees_it_closed = thread::Builder::new().spawn(move || {
        let Ok(address) = format!("{CONTROL}:{NATS_PORT}").parse() else {
            return;
        };
        let Ok(server) = TcpStream::connect_timeout(&address, CONNECT_WITHIN) else {
            return;
        };
        let _small_messages_count = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        let (Ok(from_server), Ok(to_client)) = (server.try_clone(), client.try_clone()) else {
            return;
        };
        let back = thread::Builder::new().spawn(move || copy(from_server, to_client));
        if back.is_ok() {
            copy(client, server);
        }
    });
}

/// Copies until the source ends, and then says so to the sink.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _the_end_of_either = io::copy(&mut from, &mut to);
    let _gone_already = to.shutdown(Shutdown::Write);
}

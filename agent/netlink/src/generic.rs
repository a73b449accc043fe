//! Generic netlink: families with a name, whose message type is assigned when the family is registered. Numbers are
//! from linux/genetlink.h.

use crate::attribute::find;
use crate::message::Message;
use crate::{RequestError, Socket};

/// Length in bytes of `struct genlmsghdr`, which follows the netlink header.
pub const GENERIC_HEADER_LEN: usize = 4;

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_VERSION: u8 = 2;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const ENOENT: i32 = 2;

/// Appends `struct genlmsghdr`.
pub fn push_header(message: &mut Message, command: u8, version: u8) {
    message.push(&[command, version, 0, 0]);
}

/// Returns the message type of a family, or `None` if the kernel lacks it. The kernel loads the family's module if
/// necessary.
///
/// # Errors
/// [`RequestError`].
pub fn resolve_family(socket: &mut Socket, name: &str) -> Result<Option<u16>, RequestError> {
    let mut message = Message::new(GENL_ID_CTRL, 0);
    push_header(&mut message, CTRL_CMD_GETFAMILY, CTRL_VERSION);
    message.put_string(CTRL_ATTR_FAMILY_NAME, name);
    let mut id = None;
    let completed = socket.request(message, |reply| {
        let attributes = reply.payload.get(GENERIC_HEADER_LEN..).unwrap_or_default();
        id = id.or_else(|| find(attributes, CTRL_ATTR_FAMILY_ID)?.array().map(u16::from_ne_bytes));
    });
    match completed {
        Ok(_) => Ok(id),
        Err(error) if error.errno() == Some(ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

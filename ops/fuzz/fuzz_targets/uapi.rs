//! WireGuard's userspace protocol on the mesh device's socket, as the device reads requests and a client reads answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otherix_mesh::uapi;

fuzz_target!(|bytes: &[u8]| {
    if let Some(end) = uapi::message_end(bytes, 0) {
        assert!(bytes[..end].ends_with(b"\n\n"));
    }
    let _valid_or_not = uapi::decode_request(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _valid_or_not = uapi::decode_status(text);
        let _valid_or_not = uapi::decode_set_answer(text);
    }
});

//! Stored and published events: whatever decodes is encoded and decoded again to the same event.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::subject;

fuzz_target!(|bytes: &[u8]| {
    let Ok(envelope) = EventEnvelope::decode(bytes) else { return };
    assert!(subject::event(&envelope.event).starts_with("otherix."));
    let encoded = envelope.encode().expect("a decoded event can be encoded");
    assert_eq!(EventEnvelope::decode(&encoded).expect("an encoded event can be decoded"), envelope);
});

//! Events whose stored shape has the same fields.

/// Implements an event, and its stored shape, which has the same fields.
macro_rules! same_shape {
    (
        $event:ident, $stored:ident { $($field:ident),* }, $stream:expr, $wrap:expr, $family:ident, $type:literal,
        $summary:literal, $provenance:expr
    ) => {
        impl $crate::event::DomainEvent for $event {
            type Stored = $stored;

            fn stream_id(&self) -> $crate::event::StreamId {
                let stream: fn(&Self) -> $crate::event::StreamId = $stream;
                stream(self)
            }

            fn to_stored(&self) -> $stored {
                let Self { $($field),* } = self.clone();
                $stored { $($field),* }
            }

            fn into_event(self) -> $crate::event::Event {
                let wrap: fn(Self) -> $crate::event::Event = $wrap;
                wrap(self)
            }
        }

        impl $crate::event::StoredShape for $stored {
            const TYPE: &'static str = $type;
            const FAMILY: $crate::event::Family = $crate::event::Family::$family;
            const SUMMARY: &'static str = $summary;
            const PROVENANCE: $crate::event::EventProvenance = $provenance;
            type Event = $event;

            fn upcast(self) -> Result<$event, $crate::event::StoredError> {
                let Self { $($field),* } = self;
                Ok($event { $($field),* })
            }
        }
    };
}

pub(crate) use same_shape;

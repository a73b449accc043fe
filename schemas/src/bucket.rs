//! The current state as JetStream key-value buckets: their names and keys. A value is the answer of the query `get`
//! of the resource, without what only that one shows: the view as in lists, with a position.

use uuid::Uuid;

/// A bucket of one kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    Networks,
    Vms,
    Nodes,
}

impl Bucket {
    pub const ALL: [Self; 3] = [Self::Networks, Self::Vms, Self::Nodes];

    /// The name of the bucket.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Networks => "OTHERIX_NETWORKS",
            Self::Vms => "OTHERIX_VMS",
            Self::Nodes => "OTHERIX_NODES",
        }
    }

    /// The stream of the bucket.
    pub const fn stream(self) -> &'static str {
        match self {
            Self::Networks => "KV_OTHERIX_NETWORKS",
            Self::Vms => "KV_OTHERIX_VMS",
            Self::Nodes => "KV_OTHERIX_NODES",
        }
    }

    /// The subject of a key on the stream; `>` is that of all keys.
    pub fn subject(self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name())
    }
}

/// The key of the resource with this id.
pub fn key_of_id(id: Uuid) -> String {
    format!("id.{id}")
}

/// The key of the resource with this name, in the form in which names are compared. Characters that keys cannot have
/// are written as `=` and two hexadecimal digits for each byte of UTF-8.
pub fn key_of_name(name_key: &str) -> String {
    let mut key = "name.".to_owned();
    for byte in name_key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            key.push(char::from(byte));
        } else {
            key.push_str(&format!("={byte:02X}"));
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_only_what_keys_may_have() {
        assert_eq!(key_of_name("net-dev_1"), "name.net-dev_1");
        assert_eq!(key_of_name("café 1.2"), "name.caf=C3=A9=201=2E2");
        assert_eq!(key_of_name("a=b>*"), "name.a=3Db=3E=2A");
        assert_eq!(key_of_id(Uuid::nil()), "id.00000000-0000-0000-0000-000000000000");
    }

    #[test]
    fn streams_are_those_of_buckets() {
        for bucket in Bucket::ALL {
            assert_eq!(bucket.stream(), format!("KV_{}", bucket.name()));
        }
    }
}

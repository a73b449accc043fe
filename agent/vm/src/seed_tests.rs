//! Seeds, read by mtools.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn seed() -> Seed {
    Seed {
        vm: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
        hostname: "web".into(),
        ssh_keys: vec!["ssh-ed25519 AAAA \"me\": [x]".into()],
        user_data: Some("#!/bin/sh\necho ü\n".into()),
        network_config: Some(dhcp_network_config([0x52, 0x54, 0, 1, 2, 0xab])),
    }
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn other_programs_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.img");
    seed().write(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let path = path.to_str().unwrap();
    assert!(tool("mlabel", &["-s", "-i", path, "::"]).contains("CIDATA"));
    // By their long names: cloud-init asks for them exactly so.
    assert_eq!(tool("mdir", &["-b", "-i", path, "::"]), "::/meta-data\n::/user-data\n::/network-config\n");
    assert_eq!(tool("mtype", &["-i", path, "::user-data"]), seed().user_data.unwrap());
    assert_eq!(
        tool("mtype", &["-i", path, "::meta-data"]),
        "instance-id: 01900000-0000-7000-8000-000000000001\nlocal-hostname: \"web\"\n\
         public-keys: [\"ssh-ed25519 AAAA \\\"me\\\": [x]\"]\n"
    );
    assert!(tool("mtype", &["-i", path, "::network-config"]).contains("52:54:00:01:02:ab"));
}

#[test]
fn same_content_has_same_bytes() {
    assert_eq!(seed().image().unwrap(), seed().image().unwrap());
    assert_ne!(seed().image().unwrap(), Seed { user_data: None, ..seed() }.image().unwrap());
}

#[test]
fn largest_seed_fits_and_larger_ones_are_refused() {
    let key = "k".repeat(SSH_KEYS_MAX - 1);
    let largest = Seed {
        user_data: Some("u".repeat(USER_DATA_MAX)),
        network_config: Some("n".repeat(NETWORK_CONFIG_MAX)),
        ssh_keys: vec![key.clone()],
        ..seed()
    };
    largest.image().unwrap();
    let user_data = largest.user_data.clone().map(|text| text + "u");
    let error = Seed { user_data, ..largest.clone() }.image().unwrap_err();
    assert_eq!(error.to_string(), "the user data: 65537 bytes, of at most 65536");
    let network_config = largest.network_config.clone().map(|text| text + "n");
    assert!(matches!(Seed { network_config, ..largest.clone() }.image(), Err(SeedError::TooLong { .. })));
    assert!(matches!(Seed { ssh_keys: vec![key + "k"], ..largest }.image(), Err(SeedError::TooLong { .. })));
}

#[test]
fn names_and_keys_stay_on_their_line() {
    for hostname in ["", "a b", "a\nlocal-hostname: b", &"a".repeat(64), "ü"] {
        assert!(
            matches!(Seed { hostname: hostname.into(), ..seed() }.image(), Err(SeedError::Hostname(_))),
            "{hostname}"
        );
    }
    let error = Seed { ssh_keys: vec!["a\nb".into()], ..seed() }.image().unwrap_err();
    assert_eq!(error.to_string(), "an SSH key is one line: `a\\nb`");
}

#[test]
fn hostnames_are_made_of_names() {
    let vm = Uuid::from_u128(0x0190_0000_0000_7000_8000_0123_4567_89ab);
    for (name, expected) in [
        ("web", "web"),
        ("Web Server_1.", "web-server-1"),
        ("--a--", "a"),
        ("日本", "vm-0123456789ab"),
        (&"x".repeat(80), &"x".repeat(63)),
    ] {
        assert_eq!(hostname(name, vm), expected);
    }
}

proptest! {
    #[test]
    fn any_name_gives_a_valid_hostname(name in ".{0,300}") {
        let hostname = hostname(&name, Uuid::nil());
        Seed { hostname, ..seed() }.image().unwrap();
    }
}

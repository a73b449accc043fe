//! Which manifests are accepted, and with which problems others are rejected.

mod round_trip;

use std::any::Any;

use otherix_schemas::network::{NetworkDraft, NetworkView};
use otherix_schemas::vm::{CloudInit, VmView};
use proptest::prelude::*;

use super::document::read_all;
use super::kind::TypedTarget;
use super::problem::Problems;
use super::source::Source;
use super::{Manifest, ManifestKind};
use crate::command::KINDS;
use crate::vm::definition::VmDefinition;
use crate::vm::machine_definition::MachineDefinition;

/// Reads one file for each text. Returns the manifests, or what is left of them, and the problems as lines.
fn read_files(texts: &[&str]) -> (Vec<Manifest>, Vec<String>) {
    let sources: Vec<Source> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| Source { name: format!("{at}.yaml"), text: (*text).to_owned() })
        .collect();
    let mut problems = Problems::default();
    let manifests = read_all(&sources, KINDS, &mut problems);
    (manifests, problems.lines())
}

/// The definitions of one kind.
fn definitions<K: ManifestKind>(manifests: &[Manifest]) -> Vec<&K::Definition> {
    let targets = manifests.iter().map(|manifest| &*manifest.target as &dyn Any);
    targets.filter_map(|target| target.downcast_ref::<TypedTarget<K>>()).map(|defined| &defined.definition).collect()
}

/// The networks in the files, and the problems.
fn read_networks(texts: &[&str]) -> (Vec<NetworkDraft>, Vec<String>) {
    let (manifests, problems) = read_files(texts);
    (definitions::<NetworkView>(&manifests).into_iter().cloned().collect(), problems)
}

/// The VMs in the files, and the problems.
fn read_vms(texts: &[&str]) -> (Vec<VmDefinition>, Vec<String>) {
    let (manifests, problems) = read_files(texts);
    (definitions::<VmView>(&manifests).into_iter().cloned().collect(), problems)
}

fn problems(texts: &[&str]) -> Vec<String> {
    read_files(texts).1
}

#[track_caller]
fn assert_problems(text: &str, expected: &[&str]) {
    assert_eq!(problems(&[text]), expected, "\n{text}");
}

/// A document with this spec, which begins on line 5.
fn network(spec: &str) -> String {
    format!("apiVersion: otherix/v1\nkind: Network\nmetadata: {{name: net-a}}\nspec:\n{spec}\n")
}

#[test]
fn reads_every_network_field() {
    let spec = "  type: bridge\n  bridgeName: 'br-a'\n  managed: true\n  egress: nat\n  subnet: 10.20.0.0/24\n  \
                gateway: \"10.20.0.9\"\n  dhcp: true\n  dns: false\n  allowSpoofing: true\n  mtu: 9000\n  vlan: 12";
    let draft = NetworkDraft {
        name: "net-a".to_owned(),
        kind: Some("bridge".to_owned()),
        bridge_name: Some("br-a".to_owned()),
        managed: Some(true),
        egress: Some("nat".to_owned()),
        subnet: Some("10.20.0.0/24".to_owned()),
        gateway: Some("10.20.0.9".to_owned()),
        dhcp: Some(true),
        dns: Some(false),
        allow_spoofing: Some(true),
        mtu: Some(9000),
        vlan: Some(12),
        ..NetworkDraft::default()
    };
    assert_eq!(read_networks(&[&network(spec)]), (vec![draft], vec![]));
}

#[test]
fn accepts_equivalent_yaml() {
    let plain = NetworkDraft { name: "n".into(), bridge_name: Some("br".into()), ..NetworkDraft::default() };
    for text in [
        "apiVersion: otherix/v1\nkind: Network\nmetadata:\n  name: n\nspec:\n  bridgeName: br\n",
        "\u{feff}# first\n---\r\napiVersion: otherix/v1 # a comment\r\nkind: Network\r\nmetadata: {name: \" n \"}\r\n\
         spec: {bridgeName: br, vlan: null, mtu: ~, gateway: }\r\n...\r\n",
        r#"{"apiVersion": "otherix/v1", "kind": "Network", "metadata": {"name": "n"}, "spec": {"bridgeName": "br"}}"#,
        "%YAML 1.2\n---\napiVersion: otherix/v1\nkind: Network\nmetadata:\n  name: >-\n    n\nspec: {bridgeName: 'br'}",
        "? apiVersion\n: otherix/v1\n? kind\n: Network\nmetadata: {\"name\": n}\nspec:\n    bridgeName: |-\n\
         \x20       br\n",
    ] {
        assert_eq!(read_networks(&[text]), (vec![plain.clone()], vec![]), "{text}");
    }
}

#[test]
fn suggests_fields_for_misspelt_and_misplaced_ones() {
    let text = "apiversion: otherix/v1\nkind: Network\nname: n\nMetadata: {name: n}\nspec:\n  bridge_name: br\n  \
                name: x\n  colour: red\nbridgeName: br\n";
    assert_problems(
        text,
        &[
            "0.yaml:1: apiversion: unknown field; did you mean `apiVersion`?",
            "0.yaml:3: name: unknown field; did you mean `metadata.name`?",
            "0.yaml:4: Metadata: unknown field; did you mean `metadata`?",
            "0.yaml:6: spec.bridge_name: unknown field; did you mean `bridgeName`?",
            "0.yaml:7: spec.name: unknown field; did you mean `metadata.name`?",
            "0.yaml:8: spec.colour: unknown field; the fields are `type`, `bridgeName`, `managed`, `egress`, \
             `subnet`, `gateway`, `dhcp`, `dns`, `allowSpoofing`, `mtu`, `vlan`",
            "0.yaml:9: bridgeName: unknown field; did you mean `spec.bridgeName`?",
        ],
    );
}

#[test]
fn reports_every_violation_with_its_line() {
    let spec = "  bridgeName: OTB7\n  egress: nat\n  gateway: x\n\n  mtu: -1\n  vlan: 4095";
    assert_problems(
        &network(spec),
        &[
            "0.yaml:4: spec.subnet: is required for egress `nat`",
            "0.yaml:5: spec.bridgeName: must not begin with `otb`, which is reserved",
            "0.yaml:6: spec.egress: `nat` needs a managed bridge",
            "0.yaml:7: spec.gateway: must be an IPv4 address, not `x`",
            "0.yaml:7: spec.gateway: needs a subnet",
            "0.yaml:9: spec.mtu: must be 68 to 9216, not -1",
            "0.yaml:10: spec.vlan: must be 1 to 4094, not 4095",
        ],
    );
    assert_problems(
        &network("  type: overlay\n  managed: false"),
        &["0.yaml:4: spec.subnet: is required for an overlay", "0.yaml:6: spec.managed: is not for an overlay"],
    );
}

#[test]
fn leaves_only_the_mesh_rule_to_the_control_plane() {
    let spec = "  bridgeName: b\n  managed: true\n  egress: nat\n  subnet: 10.42.1.0/24";
    assert_eq!(read_networks(&[&network(spec)]).1, Vec::<String>::new());
    let more = format!("{spec}\n  mtu: 1");
    assert_problems(
        &network(&more),
        &[
            "0.yaml:8: spec.subnet: must not lie in the mesh's supernet `10.42.0.0/16`",
            "0.yaml:9: spec.mtu: must be 68 to 9216, not 1",
        ],
    );
}

#[test]
fn rejects_values_of_another_type_without_follow_up_problems() {
    let spec = |field: &str| network(&format!("  bridgeName: br\n  {field}"));
    for (field, expected) in [
        ("managed: yes", "managed: must be `true` or `false`, not `yes`"),
        ("managed: \"true\"", "managed: must be `true` or `false`, not the string `true`"),
        ("managed: 1", "managed: must be `true` or `false`, not `1`"),
        ("mtu: 1e3", "mtu: must be a whole number, not `1e3`"),
        ("mtu: 1500.0", "mtu: must be a whole number, not `1500.0`"),
        ("mtu: 1_500", "mtu: must be a whole number, not `1_500`"),
        ("mtu: 0x5dc", "mtu: must be a whole number, not `0x5dc`"),
        ("mtu: 01500", "mtu: must be a whole number, not `01500`"),
        ("mtu: '1500'", "mtu: must be a whole number, not the string `1500`"),
        ("mtu: 99999999999999999999", "mtu: is out of range: 99999999999999999999"),
        ("vlan: [1, 2]", "vlan: must be a whole number, not a list"),
        ("vlan: {id: 1}", "vlan: must be a whole number, not a mapping"),
        ("vlan: true", "vlan: must be a whole number, not `true`"),
        ("type: [bridge]", "type: must be a string, not a list"),
        ("type: Bridge", "type: must be `bridge` or `overlay`, not `Bridge`"),
        ("egress: true", "egress: must be a string: put it in quotes, `\"true\"`"),
        ("subnet: 10", "subnet: must be a string: put it in quotes, `\"10\"`"),
        ("subnet: *net", "aliases (`*`) are not supported: write the value itself"),
        ("subnet: !!str 10.0.0.0/24", "tags (`!`) are not supported"),
        ("subnet: &a 10.0.0.0/24", "anchors (`&`) are not supported"),
        ("bridgeName: br1", "bridgeName: is given twice, first on line 5"),
    ] {
        let path = if expected.starts_with(char::is_alphabetic) && expected.contains(": ") && !expected.contains('*') {
            "spec."
        } else {
            ""
        };
        assert_problems(&spec(field), &[&format!("0.yaml:6: {path}{expected}")]);
    }
    for name in ["1", "1.5", "-3", "0x1f", ".inf", "true", "False", "1e9"] {
        let text = network("  bridgeName: br").replace("net-a", name);
        assert_problems(
            &text,
            &[&format!("0.yaml:3: metadata.name: must be a string: put it in quotes, `\"{name}\"`")],
        );
    }
    for name in ["yes", "no", "on", "1_0", "2026-01-02", "e1", "nan", "infinity", "10.0.0.1", "+a", "0b1"] {
        assert_eq!(
            read_networks(&[&network("  bridgeName: br").replace("net-a", name)]).1,
            Vec::<String>::new(),
            "{name}"
        );
    }
}

#[test]
fn requires_mandatory_fields() {
    assert_problems(
        "kind: Network\n",
        &["0.yaml:1: apiVersion: is required", "0.yaml:1: metadata: is required", "0.yaml:1: spec: is required"],
    );
    assert_problems(
        "apiVersion: otherix/v1\nmetadata: {}\nspec: {}\n",
        &["0.yaml:1: kind: is required", "0.yaml:2: metadata.name: is required"],
    );
    assert_problems(
        "apiVersion: v1\nkind: network\nmetadata:\n  name: ''\nspec: []\n",
        &[
            "0.yaml:1: apiVersion: must be `otherix/v1`, not `v1`",
            "0.yaml:2: kind: must be `Network` or `VM`, not `network`; did you mean `Network`?",
            "0.yaml:4: metadata.name: must not be empty",
            "0.yaml:5: spec: must be a mapping with the fields `type`, `bridgeName`, `managed`, `egress`, `subnet`, \
             `gateway`, `dhcp`, `dns`, `allowSpoofing`, `mtu`, `vlan`",
        ],
    );
}

const VM_FIELDS: &str = "`imageURL`, `arch`, `network`, `ip`, `node`, `vcpus`, `memoryMB`, `diskGiB`, `imageSHA256`, \
     `pullPolicy`, `cloudInit`, `userData`, `networkConfig`, `sshKeys`, `tapOnly`";

/// A VM's document with this spec, which is on line 4.
fn vm(spec: &str) -> String {
    format!("apiVersion: otherix/v1\nkind: VM\nmetadata: {{name: vm-1}}\nspec: {{{spec}}}\n")
}

#[test]
fn reads_every_vm_field() {
    let vm_1 = VmDefinition {
        name: "vm-1".to_owned(),
        image_url: Some("https://x/y".to_owned()),
        arch: Some("arm64".to_owned()),
        network: Some("n".to_owned()),
        ip: Some("10.20.0.9".to_owned()),
        node: Some("node-2".to_owned()),
        machine: MachineDefinition {
            vcpus: Some(4),
            memory_mb: Some(512),
            disk_gib: Some(20),
            image_sha256: Some("0a".repeat(32)),
            pull_policy: Some("always".to_owned()),
            no_cloud_init: false,
            tap_only: false,
            cloud_init: CloudInit {
                user_data: Some("#cloud-config".to_owned()),
                network_config: Some("version: 2".to_owned()),
                ssh_keys: vec!["ssh-ed25519 AAAA a".to_owned(), "ssh-ed25519 BBBB b".to_owned()],
            },
        },
        ..VmDefinition::default()
    };
    let digest = "0a".repeat(32);
    let all = vm(&format!(
        "imageURL: 'https://x/y', arch: arm64, network: n, ip: 10.20.0.9, node: node-2, vcpus: 4, memoryMB: 512, \
         diskGiB: 20, imageSHA256: '{digest}', pullPolicy: always, userData: '#cloud-config', networkConfig: \
         'version: 2', sshKeys: \"ssh-ed25519 AAAA a\\nssh-ed25519 BBBB b\\n\", cloudInit: true, tapOnly: false"
    ));
    assert_eq!(read_vms(&[&all]), (vec![vm_1.clone()], vec![]));
    let machine = MachineDefinition::default();
    let minimal = VmDefinition { network: None, ip: None, node: None, machine, ..vm_1 };
    let text = vm("imageURL: https://x/y, arch: arm64, network: null");
    assert_eq!(read_vms(&[&text]), (vec![minimal], vec![]));
}

#[test]
fn reports_vm_problems_with_line_and_field() {
    assert_problems(
        &vm("imageUrl: 'ftp://x', arch: x86, network: 7, cpus: 4, bridgeName: br"),
        &[
            "0.yaml:4: spec.imageUrl: unknown field; did you mean `imageURL`?",
            "0.yaml:4: spec.cpus: unknown field; did you mean `vcpus`?",
            &format!("0.yaml:4: spec.bridgeName: unknown field; the fields are {}", VM_FIELDS),
            "0.yaml:4: spec.network: must be a string: put it in quotes, `\"7\"`",
            "0.yaml:4: spec.arch: must be `amd64` or `arm64`, not `x86`",
        ],
    );
    assert_problems(
        &vm(""),
        &["0.yaml:4: spec.arch: is required for a VM", "0.yaml:4: spec.imageURL: is required for a VM"],
    );
    assert_problems(
        &vm("imageURL: 'https://me:pw@x/', arch: AMD64, network: '', node: ' '"),
        &[
            "0.yaml:4: spec.arch: must be `amd64` or `arm64`, not `AMD64`",
            "0.yaml:4: spec.imageURL: must not contain a user or password, because events are kept for ever",
            "0.yaml:4: spec.network: must not be empty",
            "0.yaml:4: spec.node: must not be empty",
        ],
    );
    assert_problems(
        &vm("imageURL: https://x/y, arch: amd64").replace("VM", "vm").replace("spec", "arch: amd64\nspec"),
        &[
            "0.yaml:2: kind: must be `Network` or `VM`, not `vm`; did you mean `VM`?",
            "0.yaml:4: arch: unknown field; did you mean `spec.arch`?",
        ],
    );
}

#[test]
fn requires_unique_names_within_a_kind() {
    let one = vm("imageURL: https://x/y, arch: amd64");
    let same = network("  bridgeName: br").replace("net-a", "vm-1");
    assert_eq!(problems(&[&one, &same]), Vec::<String>::new());
    assert_eq!(
        problems(&[&one, &one.replace("vm-1", "VM-1")]),
        ["1.yaml:3: metadata.name: VM `VM-1` is defined twice, first at 0.yaml:1"]
    );
}

#[test]
fn reports_syntax_errors_and_reads_the_other_documents() {
    let broken = network("  mtu: 1\n  bridgeName: [br");
    let good = network("  bridgeName: br");
    let (drafts, problems) =
        read_networks(&[&format!("{good}---\n{broken}---\n{}", network("  bridgeName: br\n  mtu: 1"))]);
    assert_eq!(drafts.len(), 2);
    assert_eq!(
        problems,
        [
            "0.yaml:12: invalid YAML: unclosed bracket '[' (column 15)",
            "0.yaml:16: metadata.name: network `net-a` is defined twice, first at 0.yaml:1",
            "0.yaml:19: spec.mtu: must be 68 to 9216, not 1",
        ]
    );
    for (text, line) in [
        ("a:\n\tb: 1\n", 2),
        ("a: 'x\n", 1),
        ("a: b: c\n", 1),
        ("a: 1\n b: 2\n", 2),
        ("a: 1\n\nb: \0\n", 3),
        ("{---", 1),
        ("a: \"\\q\"", 1),
        ("@", 1),
    ] {
        let (_, problems) = read_networks(&[text]);
        let expected = format!("0.yaml:{line}: invalid YAML: ");
        assert!(problems.first().is_some_and(|first| first.starts_with(&expected)), "{text:?}: {problems:?}");
    }
}

#[test]
fn ignores_empty_documents_beside_others() {
    let (good, other) = (network("  bridgeName: br"), network("  bridgeName: br").replace("net-a", "b"));
    for text in [
        format!("{good}---\n---\n# nothing\n---\n{other}"),
        format!("{good}---\n{other}---\n"),
        format!("# a comment\n---\n{good}---\n# another\n---\n{other}---\n# the last\n"),
        format!("---\n---\n{good}...\n---\n{other}---\n...\n"),
        format!("---\r\n\r\n---\r\n{good}---\n{other}---\r\n \r\n# end"),
        format!("null\n---\n{good}---\n~\n---\n{other}"),
    ] {
        let (drafts, problems) = read_networks(&[&text]);
        assert_eq!((drafts.len(), problems), (2, vec![]), "{text}");
    }
    assert_eq!(read_networks(&["# nothing\n", &good, ""]).0.len(), 1, "a file may be empty, too");
    assert_problems(
        &format!("---\n{}---\n", good.replace(": br", ": 9br")),
        &["0.yaml:6: spec.bridgeName: must begin with a letter and have only letters, digits, `_` and `-`"],
    );
}

#[test]
fn rejects_files_without_a_document() {
    for nothing in ["", "\n\n", "# only a comment\n", "\u{feff}", "---\n", "---\n# nothing\n---\n"] {
        assert_problems(nothing, &["0.yaml: contains no document"]);
    }
    assert_eq!(problems(&["", "# nothing"]), ["0.yaml: contains no document", "1.yaml: contains no document"]);
    for other in ["hello", "- a\n- b\n", "7"] {
        assert_problems(
            other,
            &["0.yaml:1: must be a mapping with the fields `apiVersion`, `kind`, `metadata`, `spec`"],
        );
    }
}

#[test]
fn requires_unique_names_across_files() {
    let one = network("  bridgeName: br");
    let (_, problems) = read_networks(&[&one, &one.replace("net-a", "b"), &one.replace("net-a", "NET-A")]);
    assert_eq!(problems, ["2.yaml:3: metadata.name: network `NET-A` is defined twice, first at 0.yaml:1"]);
}

#[test]
fn bounds_aliases_nesting_and_problems() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
    }
    let (drafts, problems) = read_networks(&[&laughs]);
    assert!(drafts.is_empty());
    let unknown = "0.yaml:1: a0: unknown field; the fields are `apiVersion`, `kind`, `metadata`, `spec`";
    assert!(problems.iter().any(|problem| problem == unknown), "{problems:?}");
    assert!(
        problems.iter().any(|problem| problem == "0.yaml:2: aliases (`*`) are not supported: write the value itself")
    );
    for deep in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), "? ".repeat(100_000)] {
        assert_eq!(read_networks(&[&deep]).1.len(), 1, "{}", &deep[..4]);
    }
    assert_problems(
        "&a {apiVersion: *a}",
        &[
            "0.yaml:1: aliases (`*`) are not supported: write the value itself",
            "0.yaml:1: anchors (`&`) are not supported",
        ],
    );
    let (_, problems) = read_networks(&[&"k: 1\nl: 2\n".repeat(10_000)]);
    assert_eq!(problems.len(), 200, "the number of reported problems is limited");
}

proptest! {
    #[test]
    fn handles_arbitrary_text(
        text in "[-a: \n\\[\\]{},&*!|>'\"%#?~ü\t]{0,60}",
        prefix in "(apiVersion: |spec: |kind: Network\n)?",
    ) {
        let text = format!("{prefix}{text}");
        let (drafts, problems) = read_networks(&[&text]);
        prop_assert!(drafts.is_empty() && !problems.is_empty(), "{}", text);
    }
}

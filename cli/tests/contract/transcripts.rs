//! The transcripts, run one after the other against one control plane for each group.

use crate::transcript::Session;

#[test]
fn network_transcripts() {
    let mut session = Session::new();
    for (name, text) in [
        ("empty", include_str!("cases/empty.txt")),
        ("names", include_str!("cases/names.txt")),
        ("bridge_names", include_str!("cases/bridge_names.txt")),
        ("numbers", include_str!("cases/numbers.txt")),
        ("nat", include_str!("cases/nat.txt")),
        ("overlays", include_str!("cases/overlays.txt")),
        ("violations", include_str!("cases/violations.txt")),
        ("output", include_str!("cases/output.txt")),
        ("lists", include_str!("cases/lists.txt")),
        ("usage", include_str!("cases/usage.txt")),
    ] {
        session.run_transcript(name, text);
    }
    let cases = session.end();
    assert!(cases > 200, "only {cases} cases were read");
}

#[test]
fn change_transcripts() {
    let mut session = Session::new();
    session.join(1);
    session.run_transcript("changes", include_str!("cases/changes.txt"));
    let cases = session.end();
    assert!(cases > 30, "only {cases} cases were read");
}

#[test]
fn vm_and_node_transcripts() {
    let mut session = Session::new();
    session.run_transcript("vms_alone", include_str!("cases/vms_alone.txt"));
    for number in [1, 2] {
        session.join(number);
    }
    session.run_transcript("vms", include_str!("cases/vms.txt"));
    let cases = session.end();
    assert!(cases > 120, "only {cases} cases were read");
}

#[test]
fn address_transcripts() {
    let mut session = Session::new();
    session.join(1);
    session.run_transcript("addresses", include_str!("cases/addresses.txt"));
    let cases = session.end();
    assert!(cases > 20, "only {cases} cases were read");
}

#[test]
fn node_removal_transcripts() {
    let mut session = Session::new();
    session.join(1);
    session.join_mesh(2);
    session.join_mesh(3);
    session.run_transcript("node_delete", include_str!("cases/node_delete.txt"));
    session.join_mesh_as(9, "node-2");
    session.run_transcript("node_again", include_str!("cases/node_again.txt"));
    let cases = session.end();
    assert!(cases > 40, "only {cases} cases were read");
}

#[test]
fn user_transcripts() {
    let mut session = Session::new();
    session.join(1);
    session.run_transcript("users_alone", include_str!("cases/users_alone.txt"));
    for (number, name, role) in [(1, "ann", "admin"), (2, "dev", "developer"), (3, "Straße", "viewer")] {
        session.create_user(number, name, role);
    }
    session.run_transcript("users", include_str!("cases/users.txt"));
    let cases = session.end();
    assert!(cases > 30, "only {cases} cases were read");
}

#[test]
fn mesh_and_overlay_transcripts() {
    let mut session = Session::new();
    session.join(1);
    session.join_mesh(2);
    session.run_transcript("mesh_alone", include_str!("cases/mesh_alone.txt"));
    session.join_mesh(3);
    session.run_transcript("mesh", include_str!("cases/mesh.txt"));
    let cases = session.end();
    assert!(cases > 15, "only {cases} cases were read");
}

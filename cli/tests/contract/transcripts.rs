//! The transcripts, played one after the other against one control plane for each group.

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
        ("faults", include_str!("cases/faults.txt")),
        ("output", include_str!("cases/output.txt")),
        ("lists", include_str!("cases/lists.txt")),
        ("usage", include_str!("cases/usage.txt")),
    ] {
        session.play(name, text);
    }
    let cases = session.end();
    assert!(cases > 200, "only {cases} cases were read");
}

#[test]
fn vm_and_node_transcripts() {
    let mut session = Session::new();
    session.play("vms_alone", include_str!("cases/vms_alone.txt"));
    for number in [1, 2] {
        session.join(number);
    }
    session.play("vms", include_str!("cases/vms.txt"));
    let cases = session.end();
    assert!(cases > 120, "only {cases} cases were read");
}

#[test]
fn node_removal_transcripts() {
    let mut session = Session::new();
    session.join(1);
    session.join_mesh(2);
    session.join_mesh(3);
    session.play("node_delete", include_str!("cases/node_delete.txt"));
    session.join_mesh_as(9, "node-2");
    session.play("node_again", include_str!("cases/node_again.txt"));
    let cases = session.end();
    assert!(cases > 40, "only {cases} cases were read");
}

#[test]
fn mesh_and_overlay_transcripts() {
    let mut session = Session::new();
    session.join(1);
    session.join_mesh(2);
    session.play("mesh_alone", include_str!("cases/mesh_alone.txt"));
    session.join_mesh(3);
    session.play("mesh", include_str!("cases/mesh.txt"));
    let cases = session.end();
    assert!(cases > 15, "only {cases} cases were read");
}

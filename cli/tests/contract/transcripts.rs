//! The transcripts, on one control plane, one after the other.

use crate::transcript::Stage;

#[test]
fn every_sentence_of_the_contract() {
    let mut stage = Stage::new();
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
        stage.play(name, text);
    }
    let cases = stage.end();
    assert!(cases > 200, "only {cases} cases were read");
}

#[test]
fn every_sentence_on_vms_and_nodes() {
    let mut stage = Stage::new();
    stage.play("vms_alone", include_str!("cases/vms_alone.txt"));
    for number in [1, 2] {
        stage.join(number);
    }
    stage.play("vms", include_str!("cases/vms.txt"));
    let cases = stage.end();
    assert!(cases > 120, "only {cases} cases were read");
}

#[test]
fn every_sentence_on_nodes_that_leave() {
    let mut stage = Stage::new();
    stage.join(1);
    stage.join_mesh(2);
    stage.join_mesh(3);
    stage.play("node_delete", include_str!("cases/node_delete.txt"));
    stage.join_mesh_as(9, "node-2");
    stage.play("node_again", include_str!("cases/node_again.txt"));
    let cases = stage.end();
    assert!(cases > 40, "only {cases} cases were read");
}

#[test]
fn every_sentence_on_the_mesh_and_vms_on_overlays() {
    let mut stage = Stage::new();
    stage.join(1);
    stage.join_mesh(2);
    stage.play("mesh_alone", include_str!("cases/mesh_alone.txt"));
    stage.join_mesh(3);
    stage.play("mesh", include_str!("cases/mesh.txt"));
    let cases = stage.end();
    assert!(cases > 15, "only {cases} cases were read");
}

//! The file beside a user's credentials that reads the buckets of the state.

use std::fs;
use std::path::Path;

use otherix_identity::{Creds, KeyKind, KeyPair};
use otherix_testkit::tempdir;
use serde_json::{Value, json};

use crate::fake::{FakeControlPlane, FakeReply, ID, private_file};
use crate::users::{control_plane, issued, run_in};

/// The accounts of requests and of the buckets, a user's key, and somebody else's.
fn keys() -> [KeyPair; 4] {
    [KeyKind::Account, KeyKind::Account, KeyKind::User, KeyKind::User]
        .map(|kind| KeyPair::generate(kind).expect("a key"))
}

fn jwt_of(path: &Path) -> String {
    Creds::load(path).expect("credentials").jwt().to_owned()
}

/// A control plane that returns these JWTs for the key.
fn signing(key: &KeyPair, jwts: [String; 2]) -> FakeControlPlane {
    let answer = json!({
        "id": ID, "name": "alice", "role": "operator", "key": key.public_key().as_str(), "expires_at": null,
        "jwt": jwts[0], "state_jwt": jwts[1],
    });
    control_plane(move |request| (request.verb == "user.credential").then(|| FakeReply::Data(answer.clone())))
}

#[test]
fn both_jwts_go_from_the_admin_into_both_files_of_the_user() {
    let [clients, state, key, _] = keys();
    let jwts = [issued(&clients, &key, "operator", 9), issued(&state, &key, "state-reader", 9)];
    let (folder, lines) = (tempdir().expect("a folder"), format!("{}\n{}\n", jwts[0], jwts[1]));
    let fake = signing(&key, jwts.clone());
    assert_eq!(run_in(&folder, &fake, "user set-role alice operator --out alice.jwt").code, 0);
    assert_eq!(fs::read_to_string(folder.path().join("alice.jwt")).expect("text"), lines);
    run_in(&folder, &fake, "user credential alice").assert_output(0, &lines, "");

    let [path, beside] = ["alice.creds", "alice.state.creds"].map(|name| folder.path().join(name));
    for (path, account) in [(&path, &clients), (&beside, &state)] {
        let before = Creds::new(issued(account, &key, "viewer", 5), key.clone()).expect("credentials");
        private_file(path, before.render().as_str());
    }
    let update = "user credential --update alice.creds --jwt alice.jwt";
    let written = "credentials of user alice written to alice.creds and alice.state.creds\n";
    run_in(&folder, &fake, update).assert_output(0, written, "");
    assert_eq!([jwt_of(&path), jwt_of(&beside)], jwts);
    let run = run_in(&folder, &fake, &format!("{update} -o json"));
    let printed: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(printed["state_credentials_file"], json!("alice.state.creds"));

    // One of them, as an earlier version wrote it; and one of another cluster.
    let give = |text: String| fs::write(folder.path().join("alice.jwt"), text).expect("written");
    give(format!("{}\n", jwts[0]));
    let run = run_in(&folder, &fake, update);
    assert!(run.code == 0 && run.stderr.contains("buckets of the state is unchanged"), "{}", run.stderr);
    give(format!("{}\n{}\n", jwts[0], issued(&clients, &key, "state-reader", 9)));
    let run = run_in(&folder, &fake, update);
    assert!(run.code == 4 && run.stderr.contains("by another control plane"), "{}", run.stderr);
    assert_eq!(jwt_of(&beside), jwts[1]);
}

/// `k` and `k.creds` have the same file beside them.
#[test]
fn a_file_beside_it_of_another_key_is_not_overwritten() {
    let [clients, state, key, other] = keys();
    let jwts = [issued(&clients, &key, "operator", 9), issued(&state, &key, "state-reader", 9)];
    let folder = tempdir().expect("a folder");
    let fake = signing(&key, jwts.clone());
    let [path, beside] = ["k", "k.state.creds"].map(|name| folder.path().join(name));
    let before = Creds::new(issued(&state, &other, "viewer", 5), other).expect("credentials");
    private_file(&path, &key.seed());
    private_file(&beside, before.render().as_str());
    fs::write(folder.path().join("jwts"), jwts.join("\n")).expect("written");
    for command in ["user credential alice --update k", "user credential --update k --jwt jwts"] {
        let run = run_in(&folder, &fake, command);
        assert!(run.code == 4 && run.stderr.contains("`k.state.creds` has another key"), "{}", run.stderr);
        assert_eq!(jwt_of(&beside), before.jwt());
        assert_eq!(fs::read_to_string(&path).expect("text").trim(), key.seed().as_str(), "nothing is half written");
    }
    fs::remove_file(&beside).expect("removed");
    let written = "credentials of user alice written to k and k.state.creds\n";
    run_in(&folder, &fake, "user credential alice --update k").assert_output(0, written, "");
    assert_eq!(jwt_of(&beside), jwts[1]);
}

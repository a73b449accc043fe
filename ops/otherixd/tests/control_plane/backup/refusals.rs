//! What is not backed up, and not restored.

use std::fs;
use std::path::Path;
use std::process::Command;

use otherix_testkit::{TempDir, tempdir};

use super::super::daemon::{OtherixdProcess, create, overlay, tool};
use super::super::log::signed;
use super::archive::Archive;
use super::{backup, names, restored};

/// Tries to restore a file; asserts that there is nothing afterwards, and returns the errors.
async fn refused(file: &Path) -> String {
    let target = tempdir().unwrap();
    let state = target.path().join("state");
    let (ok, output, errors) = tool(&state, &["restore", "--from", file.to_str().unwrap()]).await;
    assert!(!ok && output.is_empty(), "{output}{errors}");
    assert_eq!(names(target.path()), [""; 0], "{errors}");
    errors
}

fn sqlite(database: &Path, sql: &str) {
    let output = Command::new("sqlite3").arg(database).arg(sql).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8(output.stderr).unwrap());
}

/// A part as another program has changed it.
fn changed(content: &[u8], sql: &str) -> Vec<u8> {
    let folder = tempdir().unwrap();
    let file = folder.path().join("part.db");
    fs::write(&file, content).unwrap();
    sqlite(&file, sql);
    fs::read(file).unwrap()
}

/// A backup with a checkpoint of four events, taken apart, and the folder that it is in.
async fn sample() -> (TempDir, Archive) {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for name in ["a", "b", "c"] {
        create(&admin, &overlay(name)).await;
    }
    let view = signed(&daemon, &admin).await;
    assert_eq!(view.position.get(), 4);
    let target = tempdir().unwrap();
    let file = backup(&daemon, target.path(), "a.tar").await;
    let archive = Archive::read(&file);
    // Taken apart and put together it is the same, so what follows is refused for what was changed.
    assert_eq!(archive.to_bytes(), fs::read(&file).unwrap());
    restored(&archive.clone().summed().write(target.path())).await;
    (target, archive)
}

/// Makes the sums right, as a forger would; asserts that the archive is refused with this text.
async fn forged(target: &TempDir, archive: Archive, expected: &str) {
    let errors = refused(&archive.summed().write(target.path())).await;
    assert!(errors.contains(expected), "{expected}: {errors}");
}

#[tokio::test]
async fn damaged_backups_are_refused() {
    let (target, archive) = sample().await;
    let (file, whole) = (target.path().join("damaged.tar"), archive.to_bytes());
    // One bit, in the header, the content and the end of each member.
    let mut at = 0;
    for (header, content) in &archive.0 {
        let member = tar::Header::from_byte_slice(header).path().unwrap().display().to_string();
        let end = at + 512 + content.len();
        for flipped in
            [at, at + 110, at + 345, at + 512, at + 512 + content.len() / 2, end - 1, end.next_multiple_of(512) - 1]
        {
            let mut bytes = whole.clone();
            bytes[flipped] ^= 1;
            fs::write(&file, &bytes).unwrap();
            let errors = refused(&file).await;
            let reasons = ["it is not a backup", "the backup is damaged", "of format", "cannot be in a backup"];
            assert!(reasons.iter().any(|reason| errors.contains(reason)), "{member} {flipped}: {errors}");
        }
        at = end.next_multiple_of(512);
    }
    for length in [0, 1, 511, 512, whole.len() / 3, whole.len() - 1025, whole.len() - 1024, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let errors = refused(&file).await;
        assert!(errors.contains("is cut off"), "{length}: {errors}");
    }
    fs::write(&file, [whole.as_slice(), &[0]].concat()).unwrap();
    assert!(refused(&file).await.contains("is followed by something"));
}

/// Names that lead elsewhere, links, and what does not belong into a backup; all with right sums.
#[tokio::test]
async fn backups_with_foreign_members_are_refused() {
    let (target, archive) = sample().await;
    let forged = async |archive: Archive, expected: &str| forged(&target, archive, expected).await;
    for name in ["../escaped", "/escaped", "identity/../../escaped", "nats/jetstream", "identity/.ssh", "journal.db/x"]
    {
        let mut archive = archive.clone();
        archive.rename("identity/log-key.json", name);
        forged(archive, &format!("the file `{name}` cannot be in a backup")).await;
    }
    let mut links = archive.clone();
    for (header, _) in links.0.iter_mut().filter(|(header, _)| header.starts_with(b"identity/log-key.json")) {
        let mut link = tar::Header::from_byte_slice(header).clone();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_link_name("/etc/passwd").unwrap();
        *header = link.as_bytes().to_vec();
    }
    forged(links, "has another header than the manifest says").await;
    let mut more = archive.clone();
    let (mut header, content) = more.0[2].clone();
    header[..100].fill(0);
    header[..15].copy_from_slice(b"identity/zzz.nk");
    more.0.insert(more.0.len() - 1, (header, content));
    forged(more, "has another header than the manifest says").await;
    forged(archive.clone().with_manifest(|manifest| manifest["format"] = 2.into()), "of format 2").await;
    forged(archive.clone().with_manifest(|manifest| manifest["more"] = 2.into()), "its manifest cannot be read").await;
    forged(archive.clone().with_manifest(|manifest| manifest["position"] = 2.into()), "`position` otherwise").await;
}

/// Contents that do not belong together; all with right sums.
#[tokio::test]
async fn backups_with_changed_contents_are_refused() {
    let (target, archive) = sample().await;
    let forged = async |archive: Archive, expected: &str| forged(&target, archive, expected).await;
    let edit = |part: &str, sql: &str| {
        let mut archive = archive.clone();
        let content = archive.content(part);
        *content = changed(content, sql);
        archive
    };
    let open = "DROP TRIGGER events_are_never_changed; DROP TRIGGER events_are_never_deleted; ";
    let last = "position = (SELECT max(position) FROM events)";
    let set = |what: &str| edit("journal.db", &format!("{open} UPDATE events SET {what} WHERE {last}"));
    forged(set("body = CAST(replace(CAST(body AS TEXT), 'created', 'creatd') AS BLOB)"), "position").await;
    forged(set("digest = zeroblob(32)"), "`digest` at position").await;
    forged(set("type = 'dev.otherix.network.deleted.v1'"), "`type` at position").await;
    forged(
        edit("journal.db", &format!("{open} DELETE FROM handled; DELETE FROM events WHERE {last}")),
        "and the journal has",
    )
    .await;
    forged(edit("journal.db", "UPDATE meta SET epoch = 2"), "`epoch` at position").await;
    forged(
        edit("log.db", "UPDATE checkpoints SET note = replace(note, '\n4\n', '\n3\n')"),
        "is not signed with its key",
    )
    .await;
    forged(edit("log.db", "UPDATE checkpoints SET epoch = 2"), "the journal is in epoch").await;
    forged(edit("log.db", "UPDATE tiles SET hashes = zeroblob(length(hashes))"), "the log's tile `tile/").await;
    forged(edit("log.db", "DELETE FROM tiles"), "the log's tile `tile/").await;
    forged(edit("log.db", "DELETE FROM checkpoints"), "the manifest says `checkpoint` otherwise").await;
    let mut key = archive.clone();
    key.content("identity/log-key.json").clone_from(&b"{}".to_vec());
    forged(key, "does not contain the key of the log").await;
    let mut garbage = archive.clone();
    let content = garbage.content("journal.db");
    let middle = content.len() / 2;
    content[middle..].fill(0x5a);
    forged(garbage, "").await;
}

#[tokio::test]
async fn nothing_is_overwritten() {
    let daemon = OtherixdProcess::start().await;
    create(&daemon.connect("admin").await, &overlay("a")).await;
    let target = tempdir().unwrap();
    let file = backup(&daemon, target.path(), "a.tar").await;
    let name = file.to_str().unwrap().to_owned();
    let before = fs::read(&file).unwrap();
    let (ok, _, errors) = tool(daemon.state(), &["backup", &name]).await;
    assert!(!ok && errors.contains("--force"), "{errors}");
    assert_eq!(fs::read(&file).unwrap(), before);
    create(&daemon.connect("admin").await, &overlay("b")).await;
    let (ok, output, errors) = tool(daemon.state(), &["backup", &name, "--force"]).await;
    assert!(ok, "{output}{errors}");
    assert!(fs::read(&file).unwrap() != before);
    assert_eq!(names(target.path()), ["a.tar"]);

    // A state folder that has something, whatever it is.
    let full = tempdir().unwrap();
    fs::write(full.path().join("note"), "mine").unwrap();
    let (ok, _, errors) = tool(full.path(), &["restore", "--from", &name]).await;
    assert!(!ok && errors.contains("is not empty"), "{errors}");
    assert_eq!(names(full.path()), ["note"]);
    let (ok, _, errors) = tool(daemon.state(), &["restore", "--from", &name]).await;
    assert!(!ok && errors.contains("is not empty"), "{errors}");
    // A dry run verifies, and leaves nothing.
    let state = full.path().join("state");
    let (ok, output, errors) = tool(&state, &["restore", "--from", &name, "--dry-run"]).await;
    assert!(ok && output.contains("verified, and not restored"), "{output}{errors}");
    assert_eq!(names(full.path()), ["note"]);
    // A folder in which somebody else could read what is prepared.
    fs::create_dir(full.path().join("b.tar.part")).unwrap();
    let (ok, _, errors) = tool(daemon.state(), &["backup", full.path().join("b.tar").to_str().unwrap()]).await;
    assert!(!ok && errors.contains("others have access to it"), "{errors}");
}

#[tokio::test]
async fn a_journal_that_is_not_intact_is_not_backed_up() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("a")).await;
    signed(&daemon, &admin).await;
    daemon.stop().await;
    let (target, state) = (tempdir().unwrap(), daemon.state().to_owned());
    let file = target.path().join("a.tar");
    let run = async || {
        let (ok, output, errors) = tool(&state, &["backup", file.to_str().unwrap()]).await;
        if ok {
            fs::remove_file(&file).unwrap();
            return output;
        }
        assert_eq!(names(target.path()), [""; 0], "{errors}");
        errors
    };
    assert!(run().await.contains("checkpoint of the log covers"));
    let tiles = fs::read(state.join("log.db")).unwrap();
    sqlite(&state.join("log.db"), "UPDATE tiles SET hashes = zeroblob(length(hashes))");
    assert!(run().await.contains("the log's tile"));
    fs::write(state.join("log.db"), tiles).unwrap();
    let sql = "DROP TRIGGER events_are_never_changed; UPDATE events SET type = 'x' WHERE position = 1";
    sqlite(&state.join("journal.db"), sql);
    assert!(run().await.contains("`type` at position 1"));
    fs::remove_file(state.join("journal.db")).unwrap();
    assert!(run().await.contains("there is no journal"));
}

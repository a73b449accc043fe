//! `otherixd backup --into FOLDER`, as the unit of the timer runs it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use otherix_testkit::tempdir;

use super::super::daemon::{OtherixdProcess, create, overlay, tool};
use super::{mode, names};

#[tokio::test]
async fn old_backups_and_what_interrupted_ones_left_are_deleted_and_nothing_else() {
    let daemon = OtherixdProcess::start().await;
    create(&daemon.connect("admin").await, &overlay("a")).await;
    let target = tempdir().unwrap();
    let folder = |name: &str| {
        let path = target.path().join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        fs::write(path.join("journal.db"), "half").unwrap();
        path
    };
    // Of long ago: the earlier one of a day, and the newest of all. Others are not ours.
    for name in ["otherix-20200101T000000Z.tar", "otherix-20200101T100000Z.tar", "before-upgrade.tar", "notes.txt"] {
        fs::write(target.path().join(name), name).unwrap();
    }
    folder("otherix-20200102T000000Z.tar.part");
    folder("before-upgrade.tar.part");
    let arguments = ["backup", "--into", target.path().to_str().unwrap()];
    let (ok, output, errors) = tool(daemon.state(), &arguments).await;
    assert!(ok, "{output}{errors}");
    let found = names(target.path());
    let [upgrade, part, notes, new] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (upgrade.as_str(), part.as_str(), notes.as_str()),
        ("before-upgrade.tar", "before-upgrade.tar.part", "notes.txt")
    );
    assert!(new.starts_with("otherix-2") && output.contains(new.as_str()), "{output}");
    let file = target.path().join(new);
    assert_eq!(mode(&file), 0o600);
    let (ok, output, errors) = tool(daemon.state(), &["restore", "--dry-run", "--from", file.to_str().unwrap()]).await;
    assert!(ok && output.contains("verified, and not restored"), "{output}{errors}");
    assert_eq!(names(target.path()), found, "what was unpacked is removed");

    // A folder that others may write to is not emptied, and what is not of a backup is not deleted.
    let foreign = folder("otherix-20200103T000000Z.tar.part");
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o755)).unwrap();
    let (ok, output, errors) = tool(daemon.state(), &arguments).await;
    assert!(!ok && errors.contains("belongs to somebody else"), "{output}{errors}");
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(foreign.join("thesis.txt"), "mine").unwrap();
    let (ok, output, errors) = tool(daemon.state(), &arguments).await;
    assert!(!ok && errors.contains("otherix-20200103T000000Z.tar.part"), "{output}{errors}");
    assert!(foreign.join("thesis.txt").exists() && file.exists());
}

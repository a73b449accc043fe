//! `file:` URLs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use otherix_image::fetch::{FetchError, FetchSettings};
use otherix_testkit::tempdir;

use crate::{Download, content, settings};

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[test]
fn files_below_configured_folders_only() {
    let folder = tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("images/inner")).unwrap();
    fs::create_dir(root.join("images-other")).unwrap();
    let image = content(700_000);
    for name in ["images/a.qcow2", "images/inner/with space", "images-other/b", "secret"] {
        fs::write(root.join(name), &image).unwrap();
    }
    symlink(root.join("secret"), root.join("images/link")).unwrap();
    symlink("a.qcow2", root.join("images/link-within")).unwrap();
    symlink(root, root.join("images/up")).unwrap();
    symlink("/proc/self/root", root.join("images/root")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("images/fifo")).status().unwrap().success());

    let permitted = FetchSettings { folders: vec![root.join("images")], ..settings() };
    let download = Download::new(permitted);
    download.brings(&url(&root.join("images/a.qcow2")), &image);
    download.brings(&url(&root.join("images/inner/with%20space")), &image);
    download.brings(&url(&root.join("images/inner/../a.qcow2")), &image);
    let error = |path: String| download.fetch(&path).unwrap_err();
    for outside in ["secret", "images-other/b", "images/../secret", "images/%2e%2e/secret", "images/inner/../../secret"]
    {
        let found = error(url(&root.join(outside)));
        assert!(matches!(found, FetchError::Folder { .. }), "{outside}: {found:?}");
    }
    assert!(matches!(error("file:///etc/passwd".into()), FetchError::Folder { .. }));
    for inside in [
        "link",
        "link-within",
        "up/secret",
        "root/etc/passwd",
        "..%2fsecret",
        "inner%2f..%2f..%2fsecret",
        "fifo",
        "inner",
        "",
        "missing",
    ] {
        let found = error(url(&root.join("images").join(inside)));
        assert!(matches!(found, FetchError::File { .. } | FetchError::Folder { .. }), "{inside}: {found:?}");
        assert!(!found.is_transient());
    }
    let nothing_configured = Download::new(settings()).fetch(&url(&root.join("images/a.qcow2"))).unwrap_err();
    assert!(matches!(nothing_configured, FetchError::Folder { .. }));
    let small = FetchSettings { max_size: 699_999, ..download.settings.clone() };
    let too_large = Download::new(small).fetch(&url(&root.join("images/a.qcow2"))).unwrap_err();
    assert!(matches!(too_large, FetchError::TooLarge { max: 699_999 }), "{too_large:?}");
}

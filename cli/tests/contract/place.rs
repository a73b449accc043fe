//! A control plane with a folder for manifests, and runs of the program on them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use otherix_testkit::{TempDir, tempdir};
use serde_json::{Value, json};

use crate::plane::Plane;

/// A control plane, and a folder for manifests.
pub(crate) struct Place {
    pub(crate) plane: Plane,
    folder: TempDir,
}

/// What a run left behind.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let code = output.status.code().expect("an exit code");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Run {
    /// All three at once.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (code, stdout, stderr));
    }

    /// The data.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { plane: Plane::start(), folder: tempdir().expect("a folder") }
    }

    /// Where the files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file with this text.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Runs the program with this input.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Run {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut command = self.plane.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends").into()
    }

    /// The networks there are.
    pub(crate) fn names(&self) -> String {
        self.run(&["network", "list", "-o", "name"], "").stdout
    }

    /// A network as it was asked for: what differs from one creation to the next left out.
    #[track_caller]
    pub(crate) fn essence(&self, name: &str) -> Value {
        let mut view = self.run(&["network", "get", "-o", "json", "--", name], "").json();
        let fields = view.as_object_mut().expect("an object");
        for field in ["id", "generation", "created_at", "updated_at", "status"] {
            assert!(fields.remove(field).is_some(), "{field}");
        }
        if view["type"] == "overlay" {
            view["vni"] = json!("any");
            view["bridge_name"] = json!("any");
        }
        view
    }
}

/// A managed bridge with this name.
pub(crate) fn bridge(name: &str, bridge: &str) -> String {
    let name = json!(name);
    format!(
        "apiVersion: otherix/v1\nkind: Network\nmetadata: {{name: {name}}}\nspec: {{bridgeName: {bridge}, managed: true}}\n"
    )
}

//! A control plane, a directory for manifests, and runs of the program with them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use otherix_testkit::{TempDir, tempdir};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;

/// A control plane and a directory for manifests.
pub(crate) struct Workspace {
    pub(crate) control_plane: ControlPlane,
    directory: TempDir,
}

/// The result of a run.
pub(crate) struct ProgramOutput {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for ProgramOutput {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let code = output.status.code().expect("an exit code");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl ProgramOutput {
    /// Asserts the exit code and all output.
    #[track_caller]
    pub(crate) fn assert_output(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (code, stdout, stderr));
    }

    /// Parses stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Self { control_plane: ControlPlane::start(), directory: tempdir().expect("a directory") }
    }

    /// The directory of the files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Creates a file with this text. Returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Runs the program with `input` on stdin.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> ProgramOutput {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut command = self.control_plane.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the program reads stdin");
        child.wait_with_output().expect("the program exits").into()
    }

    /// The names of all networks.
    pub(crate) fn names(&self) -> String {
        self.run(&["network", "list", "-o", "name"], "").stdout
    }

    /// The view of a network without the fields that differ from one creation to the next.
    #[track_caller]
    pub(crate) fn comparable(&self, name: &str) -> Value {
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

/// The manifest of a managed bridge with this name.
pub(crate) fn bridge(name: &str, bridge: &str) -> String {
    let name = json!(name);
    format!(
        "apiVersion: otherix/v1\nkind: Network\nmetadata: {{name: {name}}}\nspec: {{bridgeName: {bridge}, \
         managed: true}}\n"
    )
}

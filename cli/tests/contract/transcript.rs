//! Runs transcripts. All differences are reported at the end, not only the first.

use std::collections::HashMap;
use std::process::Output;
use std::time::Duration;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::network::{CreateNetwork, ListNetworks};
use otherix_schemas::node::ListNodes;
use otherix_schemas::request::Request;
use otherix_schemas::user::{CreateUser, ListUsers, UserDraft};
use otherix_schemas::value::UserKey;
use otherix_schemas::vm::{CreateVm, ListVms};
use otherix_transport::Nats;
use otherix_transport::request::{CallError, CallOptions};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use crate::case::{self, Case};
use crate::control_plane::ControlPlane;
use crate::node::SimulatedNode;

/// A control plane, and the ids and cursors that the transcripts have shown so far.
pub(crate) struct Session {
    control_plane: ControlPlane,
    runtime: Runtime,
    admin: Nats,
    ids: HashMap<String, String>,
    cursor: String,
    cases: usize,
    differences: Vec<String>,
}

impl Session {
    pub(crate) fn new() -> Self {
        // These nodes send no heartbeats, and must stay reachable.
        let control_plane = ControlPlane::start_with(&["--unreachable-after-ms", "3600000"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let admin = runtime.block_on(control_plane.connect("admin"));
        Self {
            control_plane,
            runtime,
            admin,
            ids: HashMap::new(),
            cursor: String::new(),
            cases: 0,
            differences: Vec::new(),
        }
    }

    /// Adds a node.
    pub(crate) fn join(&self, number: u128) {
        self.runtime.block_on(SimulatedNode::join(&self.control_plane, number));
    }

    /// Adds a node in the mesh.
    pub(crate) fn join_mesh(&self, number: u8) {
        self.runtime.block_on(SimulatedNode::join_mesh(&self.control_plane, number));
    }

    /// Adds a node in the mesh under another name.
    pub(crate) fn join_mesh_as(&self, number: u8, name: &str) {
        self.runtime.block_on(SimulatedNode::join_mesh_as(&self.control_plane, number, name));
    }

    /// Creates a user with a key of this number.
    pub(crate) fn create_user(&self, number: u8, name: &str, role: &str) {
        let key = UserKey::from_bytes([number; 32]).to_string();
        let body = UserDraft { name: name.to_owned(), role: role.to_owned(), key, expires_at: None };
        let options = CallOptions { timeout: Duration::from_secs(5), idempotency_key: None };
        self.runtime.block_on(self.admin.call::<CreateUser>(&body, options)).expect("created");
    }

    /// Runs a transcript.
    pub(crate) fn run_transcript(&mut self, name: &str, text: &str) {
        for case in case::read(name, text) {
            self.run(&case);
            self.cases += 1;
        }
    }

    /// Returns the number of cases.
    ///
    /// # Panics
    /// If one of them differed.
    #[track_caller]
    pub(crate) fn end(self) -> usize {
        let Self { differences, cases, .. } = self;
        assert!(
            differences.is_empty(),
            "{} differences in {cases} cases:\n\n{}",
            differences.len(),
            differences.join("\n\n")
        );
        cases
    }

    fn run(&mut self, case: &Case) {
        let words = case::words(&case.line, |key| self.known(key));
        let output = self.control_plane.command(&words).output().expect("the program starts");
        let (stdout, stderr) = texts(&output);
        self.remember(&stdout, &stderr);
        let difference = self.compare(case, &words, &output).err();
        let difference =
            difference.or_else(|| case.fields.as_ref().and_then(|fields| self.check_rejection(&words, fields).err()));
        if let Some(difference) = difference {
            let Case { location, line, .. } = case;
            self.differences
                .push(format!("{location}: otherix {line}\n{difference}\nstdout:\n{stdout}\nstderr:\n{stderr}"));
        }
    }

    fn compare(&self, case: &Case, words: &[String], output: &Output) -> Result<(), String> {
        let Case { code, stdout: parts, whole, stderr: stderr_parts, .. } = case;
        let (stdout, stderr) = texts(output);
        let is = output.status.code();
        if is != Some(*code) {
            return Err(format!("ended with {is:?}"));
        }
        self.check_order(parts, &stdout)?;
        self.check_order(stderr_parts, &stderr)?;
        if let Some(whole) = whole
            && stdout.lines().ne(whole.iter().map(|line| self.filled(line)))
        {
            return Err(format!("stdout is not {whole:?}"));
        }
        let json = words.windows(2).any(|pair| pair == ["-o", "json"] || pair == ["--output", "json"]);
        match code {
            0 if stderr_parts.is_empty() && !stderr.is_empty() => Err("stderr of a success is not empty".to_owned()),
            0 => Ok(()),
            _ if parts.is_empty() && whole.is_none() && !stdout.is_empty() => {
                Err("stdout of a failure is not empty".to_owned())
            }
            _ if json => serde_json::from_str::<ErrorBody>(&stderr).map(drop).map_err(|error| error.to_string()),
            _ if stderr.starts_with("error: ") || stderr.contains("\nerror: ") => Ok(()),
            _ => Err("stderr of a failure does not begin with `error: `".to_owned()),
        }
    }

    fn check_order(&self, parts: &[String], text: &str) -> Result<(), String> {
        let mut rest = text;
        for part in parts {
            let part = self.filled(part);
            let (_, behind) = rest.split_once(&part).ok_or_else(|| format!("`{part}` is missing"))?;
            rest = behind;
        }
        Ok(())
    }

    /// Checks that the program reports these fields in JSON, too, and that the control plane does so by itself.
    fn check_rejection(&self, words: &[String], fields: &[String]) -> Result<(), String> {
        let mut json = words.to_vec();
        json.extend(["-o".to_owned(), "json".to_owned()]);
        let (_, stderr) = texts(&self.control_plane.command(&json).output().expect("the program starts"));
        let body: ErrorBody = serde_json::from_str(&stderr).map_err(|error| format!("{error}: {stderr}"))?;
        check_fields(&body, fields).map_err(|difference| format!("the program {difference}"))?;
        let (request, body) = request(words)?;
        let options = CallOptions { timeout: Duration::from_secs(5), idempotency_key: None };
        match self.runtime.block_on(self.admin.call_untyped::<_, Value>(request, &body, options)) {
            Err(CallError::Refused(refusal)) => {
                check_fields(&refusal, fields).map_err(|difference| format!("the control plane {difference}"))
            }
            other => Err(format!("the control plane answers {body:?} with {other:?}")),
        }
    }

    fn remember(&mut self, stdout: &str, stderr: &str) {
        let rest = stdout.strip_prefix("network ").or_else(|| stdout.strip_prefix("VM "));
        let created = rest.and_then(|rest| rest.split_once(" created\nid:"));
        if let Some((name, rest)) = created {
            let id = rest.lines().next().unwrap_or_default().trim();
            self.ids.insert(name.to_owned(), id.to_owned());
        }
        if let Ok(Value::Object(network)) = serde_json::from_str(stdout)
            && let (Some(name), Some(id)) =
                (network.get("name").and_then(Value::as_str), network.get("id").and_then(Value::as_str))
        {
            self.ids.insert(name.to_owned(), id.to_owned());
        }
        if let Some((_, cursor)) = stderr.split_once("next cursor: ") {
            cursor.trim().clone_into(&mut self.cursor);
        }
    }

    fn filled(&self, text: &str) -> String {
        case::filled(text, |key| self.known(key))
    }

    #[track_caller]
    fn known(&self, key: &str) -> String {
        match key.split_once(':') {
            Some(("id", name)) => self.ids.get(name).unwrap_or_else(|| panic!("no `{name}` yet")).clone(),
            _ if key == "cursor" => self.cursor.clone(),
            _ => panic!("unknown placeholder `{key}`"),
        }
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

fn check_fields(body: &ErrorBody, fields: &[String]) -> Result<(), String> {
    let error = &body.error;
    let named: Vec<&String> =
        error.details.get("fields").and_then(Value::as_object).into_iter().flatten().map(|(field, _)| field).collect();
    if error.code == ErrorCode::ValidationFailed && named == fields.iter().collect::<Vec<_>>() {
        return Ok(());
    }
    Err(format!("reports {named:?} as invalid: {error:?}"))
}

/// The request that a command line makes.
fn request(words: &[String]) -> Result<(Request, Value), String> {
    let [resource, verb, flags @ ..] = words else { return Err("no command".to_owned()) };
    let request = match (resource.as_str(), verb.as_str()) {
        ("network", "create") => Request::of::<CreateNetwork>(),
        ("network", "list") => Request::of::<ListNetworks>(),
        ("vm", "create") => Request::of::<CreateVm>(),
        ("vm", "list") => Request::of::<ListVms>(),
        ("node", "list") => Request::of::<ListNodes>(),
        ("user", "list") => Request::of::<ListUsers>(),
        _ => return Err("neither a create nor a list".to_owned()),
    };
    let mut body = Map::new();
    let mut flags = flags.iter();
    while let Some(word) = flags.next() {
        let Some(flag) = word.strip_prefix("--") else {
            body.insert("name".to_owned(), word.as_str().into());
            continue;
        };
        let value = match flag {
            "managed" | "dhcp" | "dns" | "allow-spoofing" => Value::Bool(true),
            "mtu" | "vlan" | "limit" => {
                let text = flags.next().ok_or("a value is missing")?;
                text.parse::<i64>().map_or_else(|_| text.as_str().into(), Value::from)
            }
            _ => flags.next().ok_or("a value is missing")?.as_str().into(),
        };
        body.insert(flag.replace('-', "_"), value);
    }
    Ok((request, body.into()))
}

//! A fake control plane on a real NATS server, which replies as the test requires; and runs of the program.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{ConnectOptions, HeaderMap};
use futures::StreamExt;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::request::{DRY_RUN, IDEMPOTENCY_KEY};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::python::interpreter;
use otherix_testkit::{TempDir, tempdir};
use serde_json::{Value, json};

/// The id of every network.
pub(crate) const ID: &str = "0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11";

/// The fake's reaction to a request.
pub(crate) enum FakeReply {
    Data(Value),
    Page(Value, Value),
    Error(ErrorBody),
    None,
    /// Data, immediately followed by a live outcome.
    ThenOutcome(Value),
}

/// A request as received.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) verb: String,
    pub(crate) body: Value,
    pub(crate) key: Option<String>,
    pub(crate) dry_run: bool,
}

/// The fake control plane.
pub(crate) struct FakeControlPlane {
    pub(crate) server: NatsServer,
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
    directory: TempDir,
}

/// The result of a run.
pub(crate) struct ProgramOutput {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl ProgramOutput {
    /// Asserts the exit code and all output; a failure shows all three.
    #[track_caller]
    pub(crate) fn assert_output(&self, code: i32, stdout: &str, stderr: &str) {
        let Self { code: is, stdout: out, stderr: err } = self;
        assert_eq!((*is, out.as_str(), err.as_str()), (code, stdout, stderr), "\nstdout:\n{out}\nstderr:\n{err}");
    }

    /// Parses stderr as one JSON error.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let parsed: ErrorBody = serde_json::from_str(&self.stderr).unwrap_or_else(|e| panic!("{e}: {}", self.stderr));
        json!(parsed)["error"].clone()
    }
}

impl From<Output> for ProgramOutput {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code().expect("an exit code"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn private_file(path: &Path, content: &str) {
    std::fs::write(path, content).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("its mode is set");
}

impl FakeControlPlane {
    /// NATS without a control plane.
    pub(crate) fn without_service() -> Self {
        Self::on(NatsServer::start())
    }

    pub(crate) fn on(server: NatsServer) -> Self {
        let directory = tempdir().expect("a directory");
        let credentials = json!({"user": "tester", "password": "geheim"}).to_string();
        private_file(&directory.path().join("credentials.json"), &credentials);
        Self { server, received: Arc::default(), directory }
    }

    /// A control plane that replies as `reply` returns, given the request and the number of earlier ones of its verb.
    pub(crate) fn start(reply: impl FnMut(&ReceivedRequest, usize) -> FakeReply + Send + 'static) -> Self {
        Self::start_on(NatsServer::start(), ConnectOptions::new(), reply)
    }

    /// As [`FakeControlPlane::start`], on a server to which it connects with these options.
    pub(crate) fn start_on(
        server: NatsServer,
        options: ConnectOptions,
        reply: impl FnMut(&ReceivedRequest, usize) -> FakeReply + Send + 'static,
    ) -> Self {
        let fake = Self::on(server);
        let (url, received) = (fake.server.url(), Arc::clone(&fake.received));
        let (ready, is_ready) = mpsc::channel();
        // It serves until the test ends, across restarts of NATS.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve((&url, options), received, reply, ready));
        });
        is_ready.recv_timeout(Duration::from_secs(20)).expect("the fake serves");
        fake
    }

    /// The requests received so far.
    pub(crate) fn received(&self) -> Vec<ReceivedRequest> {
        self.received.lock().expect("no panic").clone()
    }

    /// The folder of the credentials.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = program(arguments);
        command
            .env("OTHERIX_NATS_URL", self.server.url())
            .env("OTHERIX_CREDENTIALS", self.directory.path().join("credentials.json"));
        command
    }

    /// Runs the program without a terminal.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &str) -> ProgramOutput {
        self.command(arguments).output().expect("the program starts").into()
    }

    /// Runs the program with stdin and stderr on a terminal, at which `input` is typed; stdout is a pipe.
    #[track_caller]
    pub(crate) fn on_terminal(&self, arguments: &str, input: &str) -> ProgramOutput {
        let command = self.command(arguments);
        let mut script = Command::new(interpreter());
        script.args(["-c", include_str!("terminal.py"), input]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => script.env(key, value),
                None => script.env_remove(key),
            };
        }
        let output = script.output().expect("python runs; `make setup` installs it");
        let result = serde_json::from_slice(&output.stdout);
        let result: Value = result.unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let text = |key: &str| result[key].as_str().expect("a string").to_owned();
        let code = result["code"].as_i64().and_then(|code| i32::try_from(code).ok()).expect("a code");
        ProgramOutput { code, stdout: text("stdout"), stderr: text("terminal") }
    }
}

/// The program, isolated from the environment of the test run.
pub(crate) fn program(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otherix"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    for name in
        ["OTHERIX_NATS_URL", "OTHERIX_CREDENTIALS", "OTHERIX_CA", "OTHERIX_CONTEXT", "OTHERIX_STATE", "XDG_CONFIG_HOME"]
    {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent");
    command
}

async fn serve(
    (url, options): (&str, ConnectOptions),
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
    mut reply: impl FnMut(&ReceivedRequest, usize) -> FakeReply,
    ready: mpsc::Sender<()>,
) {
    let client = options.connect(url).await.expect("connected");
    let mut requests = client.subscribe("otherix.req.v1.tester.*.*").await.expect("subscribed");
    client.flush().await.expect("flushed");
    ready.send(()).expect("the test waits for it");
    while let Some(message) = requests.next().await {
        let key = message.headers.as_ref().and_then(|headers| headers.get(IDEMPOTENCY_KEY)).map(ToString::to_string);
        let verb = message.subject.strip_prefix("otherix.req.v1.tester.").expect("a request").to_owned();
        let dry_run = message.headers.as_ref().is_some_and(|headers| headers.get(DRY_RUN).is_some());
        let body = serde_json::from_slice(&message.payload).expect("JSON");
        let request = ReceivedRequest { verb, body, key, dry_run };
        let before = received.lock().expect("no panic").iter().filter(|other| other.verb == request.verb).count();
        let reply = reply(&request, before);
        received.lock().expect("no panic").push(request);
        let to = message.reply.expect("a reply subject");
        match reply {
            FakeReply::None => {}
            FakeReply::Data(data) => client.publish(to, answer(data, Value::Null)).await.expect("sent"),
            FakeReply::Page(data, cursor) => client.publish(to, answer(data, cursor)).await.expect("sent"),
            FakeReply::ThenOutcome(data) => {
                client.publish(to, answer(data, Value::Null)).await.expect("sent");
                let subject = "live.otherix.out.v1.node.reconciled.0198b2c4-0000-7000-8000-000000000001";
                client.publish(subject, "{}".into()).await.expect("sent");
            }
            FakeReply::Error(body) => {
                let mut headers = HeaderMap::new();
                headers.insert(NATS_SERVICE_ERROR, body.error.code.as_str());
                headers.insert(NATS_SERVICE_ERROR_CODE, body.error.code.status().to_string());
                let payload = serde_json::to_vec(&body).expect("JSON").into();
                client.publish_with_headers(to, headers, payload).await.expect("sent");
            }
        }
    }
}

fn answer(data: Value, cursor: Value) -> bytes::Bytes {
    let mut meta = json!({"position": 7});
    if !cursor.is_null() {
        meta["next_cursor"] = cursor;
    }
    json!({"data": data, "meta": meta}).to_string().into()
}

/// The view of a managed bridge.
pub(crate) fn view(status: Value) -> Value {
    json!({
        "id": ID, "name": "net-dev", "type": "bridge", "bridge_name": "br-dev", "managed": true, "egress": "none",
        "vlan": null, "mtu": 1500, "subnet": null, "gateway": null, "dhcp": false, "dns": false,
        "allow_spoofing": false, "vni": null, "generation": 7,
        "created_at": "2026-01-02T03:04:05.000006Z", "updated_at": "2026-01-02T03:04:05.000006Z", "deleted_at": null,
        "status": status,
    })
}

/// A network's status: nodes with status and error, and the number of nodes expected to report.
pub(crate) fn status(nodes: &[(&str, Option<&str>)], expected: usize) -> Value {
    let rows: Vec<Value> = nodes
        .iter()
        .enumerate()
        .map(|(at, (status, error))| {
            let number = at + 1;
            json!({
                "node_id": format!("0198b2c4-0000-7000-8000-{number:012}"), "node_name": format!("node-{number}"),
                "status": status, "error": error, "observed_generation": 7,
                "reconciled_at": "2026-01-02T03:04:06.000000Z", "reachable": true, "awaited": true,
            })
        })
        .collect();
    let ready = nodes.iter().filter(|(status, _)| *status == "ready").count();
    let unreported: Vec<Value> = (nodes.len() + 1..=expected).map(|number| unreported(number, true)).collect();
    json!({
        "nodes": rows, "unreported": unreported, "ready": ready, "reported": rows.len(), "expected": expected,
        "warnings": [],
    })
}

/// An awaited node that has not reported.
pub(crate) fn unreported(number: usize, reachable: bool) -> Value {
    json!({
        "node_id": format!("0198b2c4-0000-7000-8000-{number:012}"), "node_name": format!("node-{number}"),
        "reachable": reachable, "awaited": true,
    })
}

/// A network's status in a list or in the reply to a command.
pub(crate) fn no_status() -> Value {
    json!({"ready": 0, "reported": 0, "expected": 0, "warnings": []})
}

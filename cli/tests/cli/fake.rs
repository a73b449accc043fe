//! A control plane that answers as a test says, on a real NATS server; and whole runs of the program.

use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use futures::StreamExt;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::request::IDEMPOTENCY_KEY;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::python::interpreter;
use otherix_testkit::{TempDir, tempdir};
use serde_json::{Value, json};

/// The id of every canned network.
pub(crate) const ID: &str = "0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11";

/// What the fake does with a request.
pub(crate) enum Reply {
    Data(Value),
    Page(Value, Value),
    Error(ErrorBody),
    Silence,
    /// Data, and right behind it a live outcome.
    ThenOutcome(Value),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) verb: String,
    pub(crate) body: Value,
    pub(crate) key: Option<String>,
}

/// The fake and all that it needs.
pub(crate) struct Fake {
    pub(crate) server: NatsServer,
    seen: Arc<Mutex<Vec<Seen>>>,
    folder: TempDir,
}

/// What a run left behind.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// All three at once, so that a difference in one shows the others.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, stdout: &str, stderr: &str) {
        let Self { code: is, stdout: out, stderr: err } = self;
        assert_eq!((*is, out.as_str(), err.as_str()), (code, stdout, stderr), "\nstdout:\n{out}\nstderr:\n{err}");
    }

    /// The one JSON error on stderr.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let parsed: ErrorBody = serde_json::from_str(&self.stderr).unwrap_or_else(|e| panic!("{e}: {}", self.stderr));
        json!(parsed)["error"].clone()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code().expect("an exit code"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Fake {
    /// NATS alone: no control plane.
    pub(crate) fn without_service() -> Self {
        Self::on(NatsServer::start())
    }

    pub(crate) fn on(server: NatsServer) -> Self {
        let folder = tempdir().expect("a folder");
        let credentials = json!({"user": "tester", "password": "geheim"}).to_string();
        std::fs::write(folder.path().join("credentials.json"), credentials).expect("credentials");
        Self { server, seen: Arc::default(), folder }
    }

    /// NATS, and a control plane that answers with `reply`, told the verb and how often it was asked before.
    pub(crate) fn start(reply: impl FnMut(&Seen, usize) -> Reply + Send + 'static) -> Self {
        let fake = Self::without_service();
        let (url, seen) = (fake.server.url(), Arc::clone(&fake.seen));
        let (ready, is_ready) = mpsc::channel();
        // It serves for as long as the test runs, across restarts of NATS.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(&url, seen, reply, ready));
        });
        is_ready.recv_timeout(Duration::from_secs(20)).expect("the fake serves");
        fake
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = program(arguments);
        command
            .env("OTHERIX_NATS_URL", self.server.url())
            .env("OTHERIX_CREDENTIALS", self.folder.path().join("credentials.json"));
        command
    }

    /// A run to its end, with nobody at a terminal.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &str) -> Run {
        self.command(arguments).output().expect("it runs").into()
    }

    /// A run where somebody types `input`: stdin and stderr are a terminal, stdout is not.
    #[track_caller]
    pub(crate) fn on_terminal(&self, arguments: &str, input: &str) -> Run {
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
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let text = |key: &str| said[key].as_str().expect("a text").to_owned();
        let code = said["code"].as_i64().and_then(|code| i32::try_from(code).ok()).expect("a code");
        Run { code, stdout: text("stdout"), stderr: text("terminal") }
    }
}

/// The program, cut off from the environment of whoever runs the tests.
pub(crate) fn program(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otherix"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command.env_remove("OTHERIX_NATS_URL").env_remove("OTHERIX_CREDENTIALS").env("HOME", "/nonexistent");
    command
}

async fn serve(
    url: &str,
    seen: Arc<Mutex<Vec<Seen>>>,
    mut reply: impl FnMut(&Seen, usize) -> Reply,
    ready: mpsc::Sender<()>,
) {
    let client = async_nats::connect(url).await.expect("connected");
    let mut requests = client.subscribe("otherix.req.v1.tester.*.*").await.expect("subscribed");
    client.flush().await.expect("flushed");
    ready.send(()).expect("somebody waits");
    while let Some(message) = requests.next().await {
        let key = message.headers.as_ref().and_then(|headers| headers.get(IDEMPOTENCY_KEY)).map(ToString::to_string);
        let verb = message.subject.strip_prefix("otherix.req.v1.tester.").expect("a request").to_owned();
        let request = Seen { verb, body: serde_json::from_slice(&message.payload).expect("JSON"), key };
        let before = seen.lock().expect("no panic").iter().filter(|other| other.verb == request.verb).count();
        let reply = reply(&request, before);
        seen.lock().expect("no panic").push(request);
        let to = message.reply.expect("a request wants a reply");
        match reply {
            Reply::Silence => {}
            Reply::Data(data) => client.publish(to, answer(data, Value::Null)).await.expect("sent"),
            Reply::Page(data, cursor) => client.publish(to, answer(data, cursor)).await.expect("sent"),
            Reply::ThenOutcome(data) => {
                client.publish(to, answer(data, Value::Null)).await.expect("sent");
                let subject = "live.otherix.out.v1.node.reconciled.0198b2c4-0000-7000-8000-000000000001";
                client.publish(subject, "{}".into()).await.expect("sent");
            }
            Reply::Error(body) => {
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

/// A managed bridge.
pub(crate) fn view(status: Value) -> Value {
    json!({
        "id": ID, "name": "net-dev", "type": "bridge", "bridge_name": "br-dev", "managed": true, "egress": "none",
        "vlan": null, "mtu": 1500, "subnet": null, "gateway": null, "vni": null, "generation": 7,
        "created_at": "2026-01-02T03:04:05.000006Z", "updated_at": "2026-01-02T03:04:05.000006Z", "deleted_at": null,
        "status": status,
    })
}

/// How it fares: nodes with status and error, and how many are expected.
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
    let silent: Vec<Value> = (nodes.len() + 1..=expected).map(|number| silent(number, true)).collect();
    json!({"nodes": rows, "unreported": silent, "ready": ready, "reported": rows.len(), "expected": expected, "warnings": []})
}

/// A node that is awaited and has not reported.
pub(crate) fn silent(number: usize, reachable: bool) -> Value {
    json!({
        "node_id": format!("0198b2c4-0000-7000-8000-{number:012}"), "node_name": format!("node-{number}"),
        "reachable": reachable, "awaited": true,
    })
}

/// What a list or a reply of the write side says of how it fares.
pub(crate) fn no_status() -> Value {
    json!({"ready": 0, "reported": 0, "expected": 0, "warnings": []})
}

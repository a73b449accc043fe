//! Join tokens: `otherix node join-token …`. The key pair of a token is made here, and the token put together here: the
//! control plane never has it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use otherix_identity::{Creds, JoinToken, KeyKind, KeyPair};
use otherix_runtime::files;
use otherix_schemas::enrollment::{
    AllJoinTokens, CreateJoinToken, GetJoinTokenCredential, JoinTokenById, JoinTokenView, ListJoinTokens, NewJoinToken,
    RevokeJoinToken,
};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::JoinTokenId;
use otherix_schemas::value::{NodeName, UserKey};
use otherix_schemas::violations::Violations;
use otherix_transport::NatsEndpoint;
use otherix_transport::nats::ServerAddress;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::access::check_server;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::duration::{self, DurationError, Unit};
use crate::exit::Exit;
use crate::failure::{Failure, causes};
use crate::number;
use crate::output::format::Format;
use crate::output::{Printer, table};

/// Permit machines to join as nodes
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum JoinTokenSubcommand {
    /// Create a join token and print it
    #[command(after_help = CREATE_HELP)]
    Create(CreateJoinTokenArgs),
    /// List join tokens in the order of their creation
    #[command(after_help = LIST_HELP)]
    List(ListJoinTokensArgs),
    /// Revoke a join token
    #[command(after_help = REVOKE_HELP)]
    Revoke(RevokeJoinTokenArgs),
}

const EXAMPLES: &str = "\
Examples:
  otherix node join-token create
  otherix node join-token create --name node-7 --ttl 10m
  otherix node join-token list";

const CREATE_HELP: &str = "\
The token is a secret: whoever has it can add a machine to the cluster until it is used up, expires or is revoked. It \
contains the address of NATS, its CA, and a credential that permits a machine to have its own key registered, nothing \
else. On the machine, `otherix-agent join --token-file FILE` redeems it, or `otherix-agent join -` from stdin. Without \
--name, the machine chooses a name that no node has. With --name, the machine joins under that name only; if there is \
a node with the name, the machine becomes that node, and the keys that the node had are revoked: use that for a node \
whose state folder is lost.

Examples:
  otherix node join-token create
  otherix node join-token create --ttl 8h --max-uses 40 --out rack-3.token
  otherix node join-token create --name node-7 --node-server tls://nats.example.net:4222";

const LIST_HELP: &str = "\
STATUS is active, used-up, expired or revoked. Tokens are listed for some 30 days after they have expired; the tokens \
themselves are known to those only who have them.

Examples:
  otherix node join-token list
  otherix node join-token list -o json";

const REVOKE_HELP: &str = "\
Nodes that have joined with the token stay. Keys that were registered with it, and with which no agent was started \
yet, are revoked: a new machine joins again with another token, and so does a node that existed and whose keys a token \
naming it has replaced.

Examples:
  otherix node join-token revoke 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11";

#[derive(Debug, Args)]
pub(crate) struct CreateJoinTokenArgs {
    /// The only node that can join with it [default: any whose name no node has]
    #[arg(long, value_name = "NODE")]
    name: Option<String>,

    /// How long it is valid, with a unit: s, m, h or d; at most 365d
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ttl: String,

    /// How many machines can join with it, at most 10000
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    max_uses: String,

    /// The address at which nodes reach the NATS server [default: that of --server, or of the context]
    #[arg(long, value_name = "URL")]
    node_server: Option<String>,

    /// Write it to a file, which must not exist, instead of stdout
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ListJoinTokensArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeJoinTokenArgs {
    /// The id of the token
    #[arg(value_name = "UUID")]
    id: String,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Carries out a command.
pub(crate) async fn run(
    global: &GlobalArgs,
    command: JoinTokenSubcommand,
    printer: &mut Printer,
) -> Result<(), Failure> {
    match command {
        JoinTokenSubcommand::Create(args) => create(global, args, printer).await,
        JoinTokenSubcommand::List(args) => list(global, args, printer).await,
        JoinTokenSubcommand::Revoke(args) => revoke(global, args, printer).await,
    }
}

/// The units of validities.
const UNITS: [Unit; 4] = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest validity.
const TTL_MAX: Duration = Duration::from_secs(365 * 86_400);

fn ttl(text: &str) -> Result<Duration, String> {
    duration::within(text, &UNITS, TTL_MAX).map_err(|error| match error {
        DurationError::Syntax => "must be a whole number with a unit (s, m, h, d), such as 8h".to_owned(),
        DurationError::Range => "must be 1s to 365d".to_owned(),
    })
}

/// What is printed as JSON: the token, and what is known of it.
#[derive(Serialize)]
struct NewToken<'a> {
    #[serde(flatten)]
    view: &'a JoinTokenView,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

async fn create(global: &GlobalArgs, args: CreateJoinTokenArgs, printer: &mut Printer) -> Result<(), Failure> {
    let CreateJoinTokenArgs { name, ttl: validity, max_uses, node_server, out, output: _ } = args;
    let mut violations = Violations::default();
    let node_name = name.and_then(|name| violations.check("name", name.parse::<NodeName>()));
    let validity = violations.check("ttl", ttl(&validity));
    let max_uses = number::parse("max-uses", Some(&max_uses), &mut violations);
    let max_uses = max_uses.and_then(|number| {
        violations.check("max-uses", u32::try_from(number).map_err(|_| "must be 1 to 10000".to_owned()))
    });
    let (Some(validity), Some(max_uses), true) = (validity, max_uses, violations.is_empty()) else {
        return Err(violations.into());
    };
    node_server.as_deref().map_or(Ok(()), check_server)?;
    if let Some(path) = out.as_deref().filter(|path| path.symlink_metadata().is_ok()) {
        let message = format!("`{}` exists already: choose another file with --out", path.display());
        return Err(Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message));
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let pair = KeyPair::generate(KeyKind::User).map_err(|error| unexpected("make a key", &error))?;
    let key: UserKey = pair.public_key().as_str().parse().map_err(|error| unexpected("make a key", &error))?;
    let expires_at = duration::from_now(validity)?;
    let request = NewJoinToken { node_name, key, expires_at, max_uses };
    let view = client.call::<CreateJoinToken>(&request).await?.data;
    client.renew();
    let credential = client.call::<GetJoinTokenCredential>(&JoinTokenById { id: view.id }).await?.data;
    let creds = Creds::new(credential.jwt, pair).map_err(|error| unexpected("use the JWT", &error))?;
    let NatsEndpoint { url, ca, .. } = client.endpoint()?;
    let server = node_server.unwrap_or_else(|| url.clone());
    // What else the file has is no part of the token: it may be a private key.
    let ca = ca.as_ref().and_then(|ca| ca.pem());
    let (name, decision_key) = (view.node_name.clone(), credential.decision_key);
    let token = JoinToken { server: server.clone(), ca, creds, decision_key, name };
    let token = token.render().map_err(|error| unexpected("make the token", &error))?;
    if is_loopback(&server) {
        printer.note(&format!(
            "note: the token names `{server}`, which other machines cannot reach: for them, pass --node-server URL"
        ));
    }
    print(&view, &token, out.as_deref(), printer)
}

fn print(
    view: &JoinTokenView,
    token: &Zeroizing<String>,
    out: Option<&Path>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    if let Some(path) = out {
        let line = Zeroizing::new(format!("{}\n", token.as_str()));
        files::replace(path, line.as_bytes())
            .map_err(|error| unexpected(&format!("write `{}`", path.display()), &error))?;
    }
    let file = out.map(|path| path.display().to_string());
    if printer.is_json() {
        let token = out.is_none().then_some(token.as_str());
        return printer.data(&NewToken { view, token, file });
    }
    let JoinTokenView { id, expires_at, max_uses, node_name, .. } = view;
    let whom = match node_name {
        Some(name) => format!("node {name}"),
        None if *max_uses == 1 => "one new node".to_owned(),
        None => format!("{max_uses} new nodes"),
    };
    let argument = if out.is_some() { "--token-file FILE" } else { "-, and paste it" };
    printer.note(&format!("join token {id} for {whom}, valid until {expires_at}"));
    printer.note(&format!("on the machine, run: otherix-agent join {argument}"));
    match file {
        Some(file) => printer.text(&format!("{file}\n")),
        None => printer.text(&format!("{}\n", token.as_str())),
    }
}

/// Whether only this machine reaches one of the addresses.
fn is_loopback(servers: &str) -> bool {
    ServerAddress::parse_list(servers).is_ok_and(|servers| servers.iter().any(ServerAddress::is_loopback))
}

/// A list in JSON, which is complete.
#[derive(Serialize)]
struct JsonTokens<'a> {
    data: &'a [JoinTokenView],
    meta: JsonMeta,
}

#[derive(Serialize)]
struct JsonMeta {
    next_cursor: Option<String>,
}

async fn list(global: &GlobalArgs, args: ListJoinTokensArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ListJoinTokensArgs { output: _ } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let tokens = client.call::<ListJoinTokens>(&AllJoinTokens {}).await?.data;
    if printer.is_json() {
        return printer.data(&JsonTokens { data: &tokens, meta: JsonMeta { next_cursor: None } });
    }
    let row = |token: &JoinTokenView| {
        let JoinTokenView { id, node_name, status, uses, max_uses, expires_at, .. } = token;
        vec![
            id.to_string(),
            table::optional(node_name.as_ref()),
            status.as_str().to_owned(),
            format!("{uses}/{max_uses}"),
            expires_at.to_string(),
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    printer.text(&table::table(&["ID", "NODE", "STATUS", "USES", "EXPIRES"], &rows))
}

async fn revoke(global: &GlobalArgs, args: RevokeJoinTokenArgs, printer: &mut Printer) -> Result<(), Failure> {
    let RevokeJoinTokenArgs { id, output: _ } = args;
    let id: JoinTokenId = id.parse().map_err(|error| Violations::one("id", error))?;
    let mut client = ControlPlaneClient::connect(global).await?;
    let view = client.call::<RevokeJoinToken>(&JoinTokenById { id }).await?.data;
    if printer.is_json() {
        return printer.data(&view);
    }
    printer.text(&format!("join token {id} revoked\n"))
}

fn unexpected(attempt: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot {attempt}: {}", causes(error)))
}

//! One server in plain text: the keys are given, or somebody else pushes the accounts; what is missing is said.
#![expect(clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::fs;

use otherix_identity::{KeyKind, KeyPair};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::request::Request;
use otherix_schemas::user::{RevokeUser, UserById, UserRole, WhoAmI};
use otherix_testkit::wait::wait_for;
use serde_json::{Value, json};

use super::cluster::{OwnNats, Setup, claims, resigned, write_private};
use super::daemon::{OwnDaemon, connect, connects, keys, run, servers, shown};
use crate::accounts::users::{ask, register};
use crate::daemon::{DEADLINE, OtherixdProcess, call, create, draft, list_all, overlay};

#[tokio::test]
async fn with_the_operators_key_everything_works_as_with_the_embedded_server() {
    let nats = OwnNats::start(Setup::ONE);
    let arguments = [servers(&nats), keys(&nats).to_vec()].concat();
    let mut daemon = OwnDaemon::new();
    daemon.start(&arguments).await;
    let identity = daemon.state().join("identity");
    for absent in ["operator.nk", "operator-signing.nk", "operator.jwt", "account-system.nk", "signing-claims.nk"] {
        assert!(!identity.join(absent).exists(), "{absent}");
    }
    assert!(!daemon.state().join("nats").exists(), "it starts no server");
    let context: Value = serde_json::from_slice(&fs::read(daemon.state().join("context.json")).unwrap()).unwrap();
    assert_eq!(context["url"], json!(nats.urls()));
    let admin = connect(&nats, &daemon.admin()).await;
    create(&admin, &draft("one", "one")).await;
    let (ann, creds) = register(&admin, "ann", UserRole::Viewer).await;
    let connection = connect(&nats, &creds).await;
    wait_for(DEADLINE, "ann", async || connection.is_connected()).await;
    ask::<RevokeUser>(&admin, &UserById { id: ann.id }).await;
    wait_for(DEADLINE, "the end of the connection", async || !connection.is_connected()).await;
    assert!(!connects(&nats, 0, &creds).await);
    // Counted by advisories of the servers, but not those of users of others.
    daemon.logs("NATS does not authenticate the client (Authentication Failure): the credential with").await;
    let stranger = OwnDaemon::new();
    run(stranger.state(), &["accounts", "print"], &[]).await;
    assert!(!connects(&nats, 0, &stranger.sign("viewer", "clients")).await);
    assert!(!daemon.log().contains("the client has no credential of a user"), "{}", daemon.log());

    // What somebody else changes is put right.
    let account = creds.claims().body.issuer_account.clone().unwrap();
    let mut claims = claims(&nats.lookup(&account).await);
    claims["nats"]["mappings"] = json!({});
    nats.push(&resigned(&claims, &nats.operator)).await;
    let is_mapped = async || self::claims(&nats.lookup(&account).await)["nats"]["mappings"]["live.>"].is_array();
    assert!(!is_mapped().await);
    ask::<RevokeUser>(&admin, &UserById { id: register(&admin, "bob", UserRole::Viewer).await.0.id }).await;
    wait_for(DEADLINE, "the mappings", is_mapped).await;

    // A second start changes nothing on the server.
    daemon.stop().await;
    daemon.start(&arguments).await;
    assert!(!daemon.log().contains("pushed an account"), "{}", daemon.log());
    assert!(!connects(&nats, 0, &creds).await);
    let (ok, output, errors) = run(daemon.state(), &["accounts", "push"], &arguments).await;
    assert!(ok && output.matches("all servers have it").count() == 5, "{output}{errors}");
    assert_eq!(list_all(&connect(&nats, &daemon.admin()).await).await.len(), 1);
}

/// Without a full resolver, the accounts are in the configuration of the servers.
#[tokio::test]
async fn accounts_can_be_in_the_configuration() {
    let mut nats = OwnNats::start(Setup { resolver: "MEM", ..Setup::ONE });
    let mut daemon = OwnDaemon::new();
    let (ok, preload, errors) = run(daemon.state(), &["accounts", "print"], &keys(&nats)[..2]).await;
    assert!(ok && preload.matches("# OTHERIX-").count() == 5, "{preload}{errors}");
    let server = nats.servers.first_mut().unwrap();
    server.configure(|store| {
        let text = fs::read_to_string(store.with_file_name("nats.conf")).unwrap();
        text.replace("resolver_preload: {", &format!("resolver_preload: {{\n{preload}\n"))
    });
    server.restart();
    daemon.start(&servers(&nats)).await;
    let admin = connect(&nats, &daemon.admin()).await;
    create(&admin, &draft("one", "one")).await;
    daemon.assert_stream_is_copy(&nats).await;
}

/// The accounts of `print`, one by one, as `nsc` signs and pushes them.
async fn push_printed(nats: &OwnNats, state: &std::path::Path) {
    let out = nats.path("accounts");
    let (ok, output, errors) = run(state, &["accounts", "print", "--out", &shown(&out)], &[]).await;
    assert!(ok && output.lines().count() == 5, "{output}{errors}");
    for name in ["CONTROL", "EVENTS", "CLIENTS", "NODES", "STATE"] {
        let text = fs::read_to_string(out.join(format!("OTHERIX-{name}.jwt"))).unwrap();
        let mut claims = claims(text.trim());
        assert_eq!(claims["iss"], claims["sub"], "it is signed by itself");
        claims["iss"] = json!(nats.operator.public_key());
        nats.push(&resigned(&claims, &nats.operator)).await;
    }
}

#[tokio::test]
async fn without_the_operators_key_somebody_else_pushes_and_this_is_said() {
    let nats = OwnNats::start(Setup::ONE);
    let mut daemon = OwnDaemon::new();
    let log = daemon.fail(&servers(&nats)).await;
    assert!(
        log.contains("as a user of the account OTHERIX-CONTROL") && log.contains("otherixd accounts push"),
        "{log}"
    );

    push_printed(&nats, daemon.state()).await;
    daemon.start(&servers(&nats)).await;
    assert!(daemon.log().contains("NATS is not told of revocations"), "{}", daemon.log());
    let admin = connect(&nats, &daemon.admin()).await;
    let (ann, creds) = register(&admin, "ann", UserRole::Viewer).await;
    assert!(connects(&nats, 0, &creds).await);
    ask::<RevokeUser>(&admin, &UserById { id: ann.id }).await;
    daemon.logs("only the services refuse what was revoked").await;
    let connection = connect(&nats, &creds).await;
    let refused = call::<Value>(&connection, Request::of::<WhoAmI>(), &json!({}), None).await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::Unauthenticated);

    // While it runs. The account's JWT now has the revocation.
    push_printed(&nats, daemon.state()).await;
    assert!(!connects(&nats, 0, &creds).await);
    assert!(connects(&nats, 0, &daemon.admin()).await);
}

/// What others revoke for the same accounts stays revoked, and a clock that is behind loses nothing.
#[tokio::test]
async fn pushing_keeps_what_the_servers_have() {
    let nats = OwnNats::start(Setup::ONE);
    let arguments = [servers(&nats), keys(&nats).to_vec()].concat();
    let daemon = OwnDaemon::new();
    let (ok, output, errors) = run(daemon.state(), &["accounts", "push", "--dry-run"], &arguments).await;
    assert!(
        ok && output.matches("to be pushed (0 servers had an earlier one, 1 none)").count() == 5,
        "{output}{errors}"
    );
    let (ok, output, errors) = run(daemon.state(), &["accounts", "push"], &arguments).await;
    assert!(ok && output.matches(": pushed (").count() == 5 && output.contains("1 servers: n1"), "{output}{errors}");
    let creds = daemon.sign("viewer", "clients");
    assert!(connects(&nats, 0, &creds).await);

    // An hour from now, with a revocation, and without what keeps the live feed from being forged.
    let account = daemon.sign("viewer", "clients").claims().body.issuer_account.clone().unwrap();
    let mut claims = claims(&nats.lookup(&account).await);
    let later = claims["iat"].as_u64().unwrap() + 3600;
    claims["iat"] = json!(later);
    claims["nats"]["revocations"] = json!({ creds.user().as_str(): later });
    claims["nats"]["mappings"] = json!({});
    nats.push(&resigned(&claims, &nats.operator)).await;
    assert!(!connects(&nats, 0, &creds).await);

    let (ok, output, errors) = run(daemon.state(), &["accounts", "push"], &arguments).await;
    assert!(ok && output.matches("all servers have it").count() == 4, "{output}{errors}");
    assert!(output.contains("OTHERIX-CLIENTS: pushed (1 servers had an earlier one, 0 none)"), "{output}");
    let after = self::claims(&nats.lookup(&account).await);
    assert_eq!(
        (after["iat"].as_u64(), &after["nats"]["revocations"]),
        (Some(later + 1), &claims["nats"]["revocations"])
    );
    assert_eq!(after["nats"]["mappings"]["live.>"][0]["subject"], "forged.live.>");
    assert!(!connects(&nats, 0, &creds).await);
}

#[tokio::test]
async fn what_cannot_be_used_is_said_with_what_to_do() {
    let nats = OwnNats::start(Setup::ONE);
    let mut daemon = OwnDaemon::new();
    let servers = servers(&nats);
    let given = |operator: &str, creds: &str| {
        let keys = ["--nats-operator-key", operator, "--nats-system-creds", creds].map(ToOwned::to_owned);
        [servers.clone(), keys.to_vec()].concat()
    };
    let (operator, system) = (shown(&nats.path("operator.nk")), shown(&nats.path("system.creds")));
    let limited = shown(&nats.path("limited.creds"));
    let write = |name: &str, text: &str| {
        write_private(&nats.path(name), text);
        shown(&nats.path(name))
    };
    let foreign = write("foreign.nk", &KeyPair::generate(KeyKind::Operator).unwrap().seed());
    let account = write("account.nk", &KeyPair::generate(KeyKind::Account).unwrap().seed());
    let identity_key = write("identity.nk", &nats.operator_identity.seed());
    let shared = write("shared.nk", &nats.operator.seed());
    fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    for (arguments, texts) in [
        (given(&foreign, &system), ["does not trust the operator's key", "signing key of the operator"]),
        (given(&identity_key, &system), ["requires signing keys", "one of the operator's signing keys"]),
        (given(&account, &system), ["is not the seed of an operator's key", "it is the key of an account"]),
        (given(&shared, &system), ["other users have access", "chmod 600"]),
        (given(&operator, &limited), ["do not permit `$SYS.REQ.SERVER.N", ".VARZ`"]),
        (given("/nonexistent", &system), ["`/nonexistent` does not exist", ""]),
    ] {
        let log = daemon.fail(&arguments).await;
        assert!(texts.iter().all(|text| log.contains(text)), "{texts:?}: {log}");
    }
    let account = daemon.sign("relay", "control").claims().body.issuer_account.clone().unwrap();
    assert_eq!(nats.lookup(&account).await, "", "nothing was pushed");

    // A user of another account.
    daemon.start(&given(&operator, &system)).await;
    daemon.stop().await;
    let other = write("other.creds", &daemon.sign("admin", "clients").render());
    let log = daemon.fail(&given(&operator, &other)).await;
    assert!(log.contains("not those of a user of the system account"), "{log}");

    // With other servers' arguments.
    let (ok, _, errors) = run(daemon.state(), &["run", "--listen", "127.0.0.1:0"], &servers).await;
    assert!(!ok && errors.contains("cannot be used with"), "{errors}");
    let more = [servers.clone(), vec!["--nats-operator-key".to_owned(), operator.clone()]].concat();
    let (ok, _, errors) = run(daemon.state(), &["run"], &more).await;
    assert!(!ok && errors.contains("--nats-system-creds"), "{errors}");
    let (ok, _, errors) = run(daemon.state(), &["journal", "verify"], &servers).await;
    assert!(!ok && errors.contains("--nats needs --credentials, or --stream"), "{errors}");
}

#[tokio::test]
async fn servers_without_jetstream_or_a_full_resolver_are_refused() {
    for (setup, text) in [
        (Setup { jetstream: false, ..Setup::ONE }, "JetStream cannot be used in the account OTHERIX-CONTROL"),
        (Setup { resolver: "MEM", ..Setup::ONE }, "its resolver is not a full one"),
    ] {
        let nats = OwnNats::start(setup);
        let log = OwnDaemon::new().fail(&[servers(&nats), keys(&nats).to_vec()].concat()).await;
        assert!(log.contains(text), "{text}: {log}");
    }
}

/// The first commands create the events in the embedded server. Its copy stays, and is completed when it is used again.
#[tokio::test]
async fn a_state_folder_moves_to_an_existing_nats_and_back() {
    let mut embedded = OtherixdProcess::start().await;
    let admin = embedded.connect("admin").await;
    create(&admin, &overlay("one")).await;
    let (_, ann) = register(&admin, "ann", UserRole::Viewer).await;
    embedded.assert_stream_is_copy().await;
    embedded.stop().await;
    let nats = OwnNats::start(Setup::ONE);
    let arguments = [servers(&nats), keys(&nats).to_vec()].concat();
    let mut own = OwnDaemon::on(embedded.state());
    own.start(&arguments).await;
    // The same credentials.
    assert!(connects(&nats, 0, &ann).await);
    let admin = connect(&nats, &own.admin()).await;
    create(&admin, &overlay("two")).await;
    assert_eq!(list_all(&admin).await.len(), 2);
    own.assert_stream_is_copy(&nats).await;
    own.stop().await;
    for (arguments, text) in [
        (&["journal", "verify", "--stream"][..], "the clients' mirror is identical up to position"),
        (&["journal", "adopt"], "the journal has every event of the"),
        (&["restore", "--new-epoch", "--above", "5000", "--dry-run"], "epoch 2 begins at position"),
    ] {
        let (ok, output, errors) = run(own.state(), arguments, &servers(&nats)).await;
        assert!(ok && output.contains(text), "{output}{errors}");
    }
    // On the embedded server, the mirror lacks the last event.
    embedded.start_again().await;
    let admin = embedded.connect("admin").await;
    assert_eq!(list_all(&admin).await.len(), 2);
    embedded.assert_stream_is_copy().await;
}

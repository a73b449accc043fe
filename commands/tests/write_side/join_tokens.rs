//! Join tokens and keys of nodes at the command service, from outside: who becomes which node, and what is revoked.

use std::time::{Duration, Instant};

use otherix_schemas::enrollment::{
    AllJoinTokens, EnrollNode, GetEnrolledNode, GetJoinTokenCredential, GetNodeCredential, JoinTokenById,
    JoinTokenStatus, ListJoinTokens, NewNodeKey, NodeToEnroll, RevokeJoinToken, RotateNodeKey,
};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{DeleteNode, JoinNode, JoinRequest, NodeById, NodeReport, ReportNode};
use otherix_schemas::permission::Role;
use otherix_schemas::user::UserRole;

use super::credentials::{Control, HOUR, call, enrollment, join, key, node_id, whoami};
use super::relay::signer;

#[tokio::test]
async fn a_machine_with_a_token_becomes_a_node_with_a_key_of_its_own() {
    let control = Control::start().await;
    let id = control.token(10, None, 2, HOUR).await;
    let machine = control.client(&key(10));
    // It can redeem the token, and nothing else.
    for denied in [
        whoami(&machine).await.unwrap_err(),
        call::<JoinNode>(&machine, &join(11, "node-1")).await.unwrap_err(),
        call::<ListJoinTokens>(&machine, &AllJoinTokens {}).await.unwrap_err(),
        call::<GetNodeCredential>(&machine, &NewNodeKey { key: key(10) }).await.unwrap_err(),
    ] {
        assert_eq!(denied.code, ErrorCode::PermissionDenied, "{denied:?}");
    }
    let enrolled = call::<EnrollNode>(&machine, &enrollment(11, "node-1", None)).await.unwrap();
    // An interrupted machine repeats it, also when the token is used up.
    let second = call::<EnrollNode>(&machine, &enrollment(12, "node-2", None)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(call::<EnrollNode>(&machine, &enrollment(11, "node-1", None)).await.unwrap(), enrolled);
    }
    let in_capitals = call::<EnrollNode>(&machine, &enrollment(11, "NODE-1", None)).await.unwrap();
    assert_eq!(in_capitals, enrolled, "a name is the same in any case");
    let used_up = call::<EnrollNode>(&machine, &enrollment(13, "node-3", None)).await.unwrap_err();
    assert!(used_up.code == ErrorCode::Conflict && used_up.message.contains("is used up: it was redeemed 2 times."));
    let credential = call::<GetEnrolledNode>(&machine, &NewNodeKey { key: key(11) }).await.unwrap();
    assert_eq!((credential.node_id, credential.decision_key), (enrolled.node_id, signer().public()));
    let issued = control.issuer.0.lock().unwrap().last().unwrap().clone();
    assert_eq!((issued.name.as_str(), issued.role, issued.key), ("node-1", Role::Node, key(11)));
    let tokens = call::<ListJoinTokens>(&control.admin(), &AllJoinTokens {}).await.unwrap();
    assert_eq!((tokens.len(), tokens[0].id, tokens[0].uses), (1, id, 2));
    assert_eq!(tokens[0].status, JoinTokenStatus::UsedUp);
    // Another token has nothing to do with that key.
    control.token(20, None, 1, HOUR).await;
    let foreign = call::<GetEnrolledNode>(&control.client(&key(20)), &NewNodeKey { key: key(11) }).await.unwrap_err();
    assert_eq!(foreign.code, ErrorCode::NotFound);

    let (node, id) = (control.client(&key(11)), enrolled.node_id);
    let own = JoinRequest { node_id: id, ..join(0, "node-1") };
    call::<JoinNode>(&node, &own).await.unwrap();
    let renamed = call::<JoinNode>(&node, &JoinRequest { name: "node-9".parse().unwrap(), ..own.clone() }).await;
    assert_eq!(renamed.unwrap_err().code, ErrorCode::Conflict);
    let report = |node_id| NodeReport { node_id, incarnation: 1, sequence: 1, results: Vec::new() };
    call::<ReportNode>(&node, &report(id)).await.unwrap();
    for denied in [
        call::<JoinNode>(&node, &JoinRequest { node_id: second.node_id, ..join(0, "node-2") }).await.map(drop),
        call::<ReportNode>(&node, &report(second.node_id)).await.map(drop),
    ] {
        let denied = denied.unwrap_err();
        assert_eq!((denied.code, &denied.details["permission"]), (ErrorCode::PermissionDenied, &"node:report".into()));
    }

    // Removed, its key is revoked, and its id does not come back with any token.
    call::<DeleteNode>(&control.admin(), &NodeById { id }).await.unwrap();
    let revoked = call::<JoinNode>(&node, &own).await.unwrap_err();
    assert!(revoked.code == ErrorCode::Unauthenticated && revoked.message.contains("is revoked"), "{revoked:?}");
    control.token(30, Some("node-1"), 1, HOUR).await;
    let back = call::<EnrollNode>(&control.client(&key(30)), &enrollment(31, "node-1", Some(id))).await.unwrap_err();
    assert!(back.message.contains("removed from the cluster for good"), "{back:?}");
    let reused = call::<EnrollNode>(&control.client(&key(30)), &enrollment(11, "node-1", None)).await.unwrap_err();
    assert!(reused.message.contains("is or was registered"), "{reused:?}");
    let new = call::<EnrollNode>(&control.client(&key(30)), &enrollment(31, "node-1", None)).await.unwrap();
    assert_ne!(new.node_id, id);
}

#[tokio::test]
async fn tokens_are_refused_with_the_reason() {
    let control = Control::start().await;
    control.node(40, "node-1").await;
    let refused = async |token: u8, machine: &NodeToEnroll| {
        call::<EnrollNode>(&control.client(&key(token)), machine).await.unwrap_err().message
    };
    control.token(10, Some("node-7"), 1, HOUR).await;
    assert!(refused(10, &enrollment(11, "node-8", None)).await.contains("is for node `node-7`, not for `node-8`"));
    control.token(20, None, 1, HOUR).await;
    let taken = refused(20, &enrollment(21, "NODE-1", None)).await;
    assert!(taken.contains("there is a node `NODE-1`") && taken.contains("--name NODE-1"), "{taken}");
    // The id of another node, claimed with a token for a new one.
    let claimed = refused(20, &enrollment(21, "node-2", Some(node_id(40)))).await;
    assert!(claimed.contains("has joined as `node-1`"), "{claimed}");
    // The id of a user: the events of the node would name it.
    let ann = control.create(90, "ann", UserRole::Viewer).await;
    let user_id = refused(20, &enrollment(21, "node-2", Some(NodeId::new(ann.id.uuid())))).await;
    assert!(user_id.contains("is not that of a node"), "{user_id}");
    control.token(30, Some("node-1"), 1, HOUR).await;
    let foreign = refused(30, &enrollment(31, "node-1", Some(node_id(99)))).await;
    assert!(foreign.contains("the state folder is that of node"), "{foreign}");

    let revoked = control.token(50, None, 1, HOUR).await;
    call::<EnrollNode>(&control.client(&key(50)), &enrollment(51, "node-5", None)).await.unwrap();
    call::<RevokeJoinToken>(&control.admin(), &JoinTokenById { id: revoked }).await.unwrap();
    assert!(refused(50, &enrollment(52, "node-6", None)).await.contains("is revoked"));
    // What was redeemed with it, and had not joined.
    let node = call::<JoinNode>(&control.client(&key(51)), &join(51, "node-5")).await.unwrap_err();
    assert!(node.message.contains("is revoked"), "{node:?}");
    let none = call::<GetJoinTokenCredential>(&control.admin(), &JoinTokenById { id: revoked }).await.unwrap_err();
    assert_eq!(none.code, ErrorCode::NotFound);

    let begin = Instant::now();
    control.token(60, None, 1, Duration::from_millis(30)).await;
    let expired = loop {
        match call::<EnrollNode>(&control.client(&key(60)), &enrollment(61, "node-1", None)).await {
            Err(error) if error.message.contains("expired") => break error,
            other => assert!(begin.elapsed() < Duration::from_secs(10), "{other:?}"),
        }
    };
    assert!(expired.message.contains("otherix node join-token create"), "{expired:?}");
}

#[tokio::test]
async fn a_node_takes_another_key_without_a_gap() {
    let control = Control::start().await;
    let node = control.node(10, "node-1").await;
    call::<JoinNode>(&node, &join(10, "node-1")).await.unwrap();
    for _ in 0..2 {
        call::<RotateNodeKey>(&node, &NewNodeKey { key: key(21) }).await.unwrap();
    }
    // Each key that is given up is kept for ever: a node cannot make them without end.
    let limited = call::<RotateNodeKey>(&node, &NewNodeKey { key: key(20) }).await.unwrap_err();
    assert!(limited.code == ErrorCode::Unavailable && limited.message.contains("retry in"), "{limited:?}");
    // The present key is valid until the other one is used.
    for valid in [10, 21] {
        let credential = call::<GetNodeCredential>(&node, &NewNodeKey { key: key(valid) }).await.unwrap();
        assert_eq!((credential.node_id, credential.key), (node_id(10), key(valid)));
    }
    call::<JoinNode>(&node, &join(10, "node-1")).await.unwrap();
    let next = control.client(&key(21));
    call::<JoinNode>(&next, &join(10, "node-1")).await.unwrap();
    let old = call::<JoinNode>(&node, &join(10, "node-1")).await.unwrap_err();
    assert!(old.message.contains("is revoked"), "{old:?}");
    let limited = call::<RotateNodeKey>(&next, &NewNodeKey { key: key(20) }).await.unwrap_err();
    assert_eq!(limited.code, ErrorCode::Unavailable, "also after the key is in use");
    // A lost state folder: a token that names the node ends the key that it had.
    control.token(30, Some("node-1"), 1, HOUR).await;
    let again = call::<EnrollNode>(&control.client(&key(30)), &enrollment(31, "node-1", None)).await.unwrap();
    assert_eq!(again.node_id, node_id(10));
    assert!(call::<JoinNode>(&next, &join(10, "node-1")).await.unwrap_err().message.contains("is revoked"));
    call::<JoinNode>(&control.client(&key(31)), &join(10, "node-1")).await.unwrap();
}

/// Who revokes a token that was leaked expects that nobody gets in with it, or did: what is in use stays.
#[tokio::test]
async fn a_revoked_token_revokes_the_keys_that_are_not_in_use() {
    let control = Control::start().await;
    let first = control.node(10, "node-1").await;
    call::<JoinNode>(&first, &join(10, "node-1")).await.unwrap();
    let revoke = async |id| call::<RevokeJoinToken>(&control.admin(), &JoinTokenById { id }).await.unwrap();
    let join_as = async |number: u8, name: &str, id: NodeId| {
        call::<JoinNode>(&control.client(&key(number)), &JoinRequest { node_id: id, ..join(0, name) }).await
    };
    let expect_revoked = async |number: u8, name: &str, id: NodeId| {
        let refused = join_as(number, name, id).await.unwrap_err();
        assert!(refused.message.contains("is revoked"), "{number} {refused:?}");
    };

    // A member with a key that was registered with the token, and not used: it needs another token.
    let token = control.token(20, Some("node-1"), 1, HOUR).await;
    call::<EnrollNode>(&control.client(&key(20)), &enrollment(21, "node-1", None)).await.unwrap();
    revoke(token).await;
    for number in [10, 21] {
        expect_revoked(number, "node-1", node_id(10)).await;
    }
    let token = control.token(30, Some("node-1"), 1, HOUR).await;
    let again = call::<EnrollNode>(&control.client(&key(30)), &enrollment(31, "node-1", None)).await.unwrap();
    assert_eq!(again.node_id, node_id(10), "it is the same node");
    // In use, it stays, also if it was offered another one since.
    join_as(31, "node-1", node_id(10)).await.unwrap();
    call::<RotateNodeKey>(&control.client(&key(31)), &NewNodeKey { key: key(32) }).await.unwrap();
    revoke(token).await;
    join_as(31, "node-1", node_id(10)).await.unwrap();
    join_as(32, "node-1", node_id(10)).await.unwrap();
    expect_revoked(31, "node-1", node_id(10)).await;

    // New machines: one that has joined, and one that has not.
    let token = control.token(40, None, 2, HOUR).await;
    let machine = control.client(&key(40));
    let joined = call::<EnrollNode>(&machine, &enrollment(41, "node-4", None)).await.unwrap().node_id;
    let other = call::<EnrollNode>(&machine, &enrollment(42, "node-5", None)).await.unwrap().node_id;
    join_as(41, "node-4", joined).await.unwrap();
    revoke(token).await;
    join_as(41, "node-4", joined).await.unwrap();
    expect_revoked(42, "node-5", other).await;
    // Its name is free.
    control.token(50, None, 1, HOUR).await;
    call::<EnrollNode>(&control.client(&key(50)), &enrollment(51, "NODE-5", None)).await.unwrap();
}

/// A machine that lost its key with the token may come back under another name: the name that it had stays with the
/// machine that has it now.
#[tokio::test]
async fn a_name_belongs_to_the_node_that_has_a_key() {
    let control = Control::start().await;
    let redeem = async |token: u8, machine: u8, name: &str, own: Option<NodeId>| {
        let id = control.token(token, None, 1, HOUR).await;
        let enrolled = call::<EnrollNode>(&control.client(&key(token)), &enrollment(machine, name, own)).await;
        enrolled.map(|node| (node.node_id, id))
    };
    let (first, token) = redeem(10, 11, "node-2", None).await.unwrap();
    call::<RevokeJoinToken>(&control.admin(), &JoinTokenById { id: token }).await.unwrap();
    let (second, _) = redeem(20, 21, "node-2", None).await.unwrap();
    assert_ne!(first, second);
    let (again, _) = redeem(30, 31, "node-3", Some(first)).await.unwrap();
    assert_eq!(again, first);

    let refused = redeem(40, 41, "node-2", None).await.unwrap_err();

    assert!(refused.code == ErrorCode::Conflict && refused.message.contains("node-2"), "{refused:?}");
}

//! Events that are longer than an entry of the transparency log: no export of a journal with one could be verified.

use otherix_commands::store::EventStore;
use otherix_commands::writer::{CommandRequest, Refusal};
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::node::NodeCommand;
use otherix_schemas::position::Position;
use otherix_schemas::vm::{CloudInit, Machine, PullPolicy, VmCommand};
use otherix_tlog::tile::ENTRY_MAX;
use uuid::Uuid;

use super::support::{JournalFolder, RunningWriter, create_vm, join, memory_store, with_key};

/// A VM that runs on a node, with `count` characters of user data that JSON has to escape, and as much as it may have
/// of all else.
fn long_vm(number: usize, node: NodeId, count: usize) -> CommandRequest {
    let mut request = create_vm(number, NetworkId::new(Uuid::nil()));
    let Command::Vm(VmCommand::Create { vm, .. }) = &mut request.command else { panic!("another command") };
    let cloud_init = CloudInit {
        user_data: Some("\"".repeat(count)),
        network_config: Some("\n".repeat(8_192)),
        ssh_keys: vec![format!("ssh-ed25519 {}", "A".repeat(500)); 32],
    };
    let (disk_gib, image_sha256, cloud_init) = (None, None, Some(cloud_init));
    let pull_policy = PullPolicy::IfNotPresent;
    vm.machine = Some(Machine { vcpus: 1, memory_mb: 64, disk_gib, image_sha256, pull_policy, cloud_init });
    (vm.network_id, vm.node_id) = (None, Some(node));
    request
}

async fn refuses_and_goes_on<S: EventStore + 'static>(writer: RunningWriter<S>) {
    let request = join("node-1");
    let Command::Node(NodeCommand::Join { node_id, .. }) = request.command else { panic!("another command") };
    writer.execute(request).await.unwrap();
    let is_refused = |refusal: Refusal| {
        let Refusal::TooLong(bytes) = refusal else { panic!("{refusal}") };
        assert!(bytes > ENTRY_MAX, "{bytes}");
        let error = ErrorBody::from(refusal).error;
        assert_eq!((error.code, error.code.status()), (ErrorCode::ValidationFailed, 400));
        assert!(error.message.contains(&format!("{bytes} bytes")) && error.message.contains("shorten"), "{error:?}");
    };
    let head = writer.journal.head().await.unwrap();
    is_refused(writer.execute(long_vm(1, node_id, 16_384)).await.unwrap_err());
    is_refused(writer.handle.try_out(long_vm(1, node_id, 16_384)).await.unwrap_err());
    // Its idempotency key is not used up.
    is_refused(writer.execute(with_key(long_vm(1, node_id, 16_384), "k", "long")).await.unwrap_err());
    assert_eq!(writer.journal.head().await.unwrap(), head, "nothing is recorded");
    writer.handle.try_out(long_vm(1, node_id, 14_000)).await.unwrap();
    writer.execute(with_key(long_vm(1, node_id, 14_000), "k", "short")).await.unwrap();
    // As long as it may be, to the byte.
    let stored = writer.journal.read(head, 10).await.unwrap();
    let rest = ENTRY_MAX - stored.iter().map(|entry| entry.body.len()).max().unwrap();
    let fits = 14_000 + rest / 2;
    writer.execute(long_vm(2, node_id, fits)).await.unwrap();
    is_refused(writer.execute(long_vm(3, node_id, fits + 1)).await.unwrap_err());
    let journal = writer.stop().await;
    let stored = journal.read(Position::ZERO, 100).await.unwrap();
    let longest = stored.iter().map(|entry| entry.body.len()).max().unwrap();
    assert!((ENTRY_MAX - 1..=ENTRY_MAX).contains(&longest), "{longest}");
}

#[tokio::test]
async fn an_event_that_no_entry_can_have_is_refused_and_the_writer_goes_on() {
    refuses_and_goes_on(RunningWriter::start(memory_store()).await).await;
    let folder = JournalFolder::new();
    refuses_and_goes_on(RunningWriter::start(folder.open().await).await).await;
}

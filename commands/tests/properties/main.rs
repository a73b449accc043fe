//! Invariants for any sequence of commands: names, bridges and NAT subnets are unique, a VNI or mesh address is never
//! assigned twice, a public key belongs to one node, a removed node never returns and is never awaited, no NIC is
//! attached to a deleted network or has an address of another, names and keys of users are unique, there is an admin
//! once there was one, events are caused by those that their declarations name, and the state is a function of the
//! events: replaying a prefix gives the state at that position.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

#[path = "../support/builders.rs"]
mod builders;
#[path = "../support/decisions.rs"]
mod decisions;
mod machines;
mod networks;
mod users;

use builders::*;
use decisions::{Given, given};
use machines::{
    check_addresses, check_allocated, check_enrollments, check_mesh, check_nodes, create_token, enroll,
    enrollment_command, join_with_key, membership_command, offer_key,
};
use networks::{check_invariants, check_vms, command};
use otherix_commands::config::ClusterConfig;
use otherix_commands::domain::State;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::command::Command;
use otherix_schemas::enrollment::{EnrollmentCommand, EnrollmentEvent};
use otherix_schemas::event::Event;
use otherix_schemas::network::{NetworkCommand, NetworkEvent};
use otherix_schemas::node::{NodeCommand, NodeEvent};
use otherix_schemas::outcome::ResourceRef;
use otherix_schemas::position::Position;
use otherix_schemas::user::{UserCommand, UserEvent};
use otherix_schemas::value::VniRange;
use otherix_schemas::vm::{VmCommand, VmEvent};
use proptest::prelude::*;
use users::{check_users, user_command};

/// Whether a command would create a resource with an id in use. Real ids are random, so such commands are skipped.
fn reuses_id(given: &Given, command: &Command) -> bool {
    given.envelopes.iter().any(|envelope| match (&envelope.event, command) {
        (Event::Network(NetworkEvent::Created(event)), Command::Network(NetworkCommand::Create { network_id, .. })) => {
            event.network_id == *network_id
        }
        (Event::Vm(VmEvent::Created(event)), Command::Vm(VmCommand::Create { vm_id, .. })) => event.vm_id == *vm_id,
        (
            Event::User(UserEvent::Created(event)),
            Command::User(UserCommand::Create { user_id, .. } | UserCommand::CreateFirst { user_id, .. }),
        ) => event.user_id == *user_id,
        (
            Event::Enrollment(EnrollmentEvent::TokenCreated(event)),
            Command::Enrollment(EnrollmentCommand::CreateToken { token_id, .. }),
        ) => event.token_id == *token_id,
        (
            Event::Enrollment(EnrollmentEvent::KeyRegistered(event)),
            Command::Enrollment(EnrollmentCommand::Enroll { new_id, .. }),
        ) => event.node_id == *new_id,
        (Event::Node(NodeEvent::Joined(event)), Command::Enrollment(EnrollmentCommand::Enroll { new_id, .. })) => {
            event.node_id == *new_id
        }
        _ => false,
    })
}

/// Replaces the generations in a report by the current ones.
fn with_current_generations(given: &Given, mut command: Command) -> Command {
    if let Command::Node(NodeCommand::RecordReport(report)) = &mut command {
        for result in &mut report.results {
            let current = match result.resource {
                ResourceRef::Network(id) => given.state.network(id).map(|network| network.generation),
                ResourceRef::Nic(id) => given.state.nics().get(id).map(|nic| nic.generation),
                ResourceRef::Vm(id) => {
                    let machine = given.state.vms().get(&id).and_then(|vm| vm.machine.as_ref());
                    machine.map(|machine| machine.generation)
                }
            };
            result.generation = current.unwrap_or(result.generation);
        }
    }
    command
}

/// The further events of a command have its first one as their cause: their declarations say so.
fn check_causes(decided: &[EventEnvelope]) -> Result<(), TestCaseError> {
    let Some((first, further)) = decided.split_first() else { return Ok(()) };
    let cause = first.event.declaration().name();
    for envelope in further {
        let declaration = envelope.event.declaration();
        prop_assert!(declaration.provenance.causes.contains(&cause), "{} after {cause}", declaration.name());
    }
    Ok(())
}

/// Executes the commands, checks all invariants after each, and compares every state with a replay.
fn check(commands: Vec<Command>, prepared: fn(&Given, Command) -> Command) -> Result<(), TestCaseError> {
    let vni = |number: u32| number.try_into().unwrap();
    let vnis = VniRange::new(vni(1000), vni(1004)).unwrap();
    // Fewer addresses than nodes.
    let mesh = subnet("192.0.2.0/29");
    let mut given = given([]).configured(ClusterConfig { vnis, mesh, ..ClusterConfig::default() });
    let mut states = Vec::new();
    for command in commands {
        let command = prepared(&given, command);
        if reuses_id(&given, &command) {
            continue;
        }
        let before = given.envelopes.len();
        if given.execute(&command).is_err() {
            prop_assert_eq!(given.envelopes.len(), before, "a rejected command has no effect");
        }
        if given.envelopes.len() > before {
            states.push(given.state.clone());
        }
        check_causes(given.envelopes.get(before..).unwrap_or_default())?;
        check_invariants(&given)?;
        check_vms(&given)?;
        check_mesh(&given)?;
        check_nodes(&given)?;
        check_users(&given)?;
        check_enrollments(&given)?;
        check_addresses(&given)?;
        check_allocated(&given)?;
    }
    let mut replayed = State::default();
    let mut states = states.iter().peekable();
    for envelope in &given.envelopes {
        // A state restored from a snapshot must continue like the replayed one.
        let bytes = postcard::to_allocvec(&replayed).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<State>(&bytes).unwrap(), &replayed);
        // From the stored bytes.
        let stored = EventEnvelope::decode(&envelope.encode().unwrap()).unwrap();
        replayed.evolve(&stored);
        // A command may lead to several events.
        if let Some(state) = states.next_if(|state| state.position() == replayed.position()) {
            prop_assert_eq!(&replayed, state);
        }
    }
    prop_assert!(states.next().is_none());
    prop_assert_eq!(replayed.position(), Position::new(given.envelopes.len() as u64));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_every_prefix_replays(commands in prop::collection::vec(command(), 1..60)) {
        check(commands, |_, command| command)?;
    }

    #[test]
    fn invariants_hold_while_nodes_join_and_leave(commands in prop::collection::vec(membership_command(), 1..60)) {
        check(commands, with_current_generations)?;
    }

    #[test]
    fn invariants_hold_while_machines_join(commands in prop::collection::vec(enrollment_command(), 1..60)) {
        check(commands, |_, command| command)?;
    }

    #[test]
    fn invariants_hold_while_users_come_and_go(commands in prop::collection::vec(user_command(), 1..60)) {
        check(commands, |_, command| command)?;
    }
}

/// The rarest order of what a join decides, which random commands reach once in thousands of sequences.
#[test]
fn a_node_may_join_for_the_first_time_with_the_key_that_it_offered() {
    let mut given = given([]);
    for command in [create_token(1, None, 1, 1), enroll(1, 2, "node-1", 2, None), offer_key(2, 3)] {
        given.execute(&command).unwrap();
    }
    let before = given.envelopes.len();
    given.execute(&join_with_key(2, "node-1", 3)).unwrap();
    let decided = given.envelopes.get(before..).unwrap();
    let names: Vec<_> = decided.iter().map(|envelope| envelope.event.declaration().name()).collect();
    assert_eq!(names, ["node.joined", "node-key.changed"]);
    check_causes(decided).unwrap();
}

//! The plan of each folder of `cases/`: `current.json` is the observed state, `desired.json` the desired state and
//! later notifications, `expected.json` the plan.

use std::collections::BTreeSet;
use std::fs;

use otherix_agent::device::KINDS;
use otherix_agent::engine::{Failures, Memos, PlanInputs, plan, plan_with};
use otherix_agent::model::desired::Desired;
use otherix_agent::model::link::{Link, LinkChange};
use otherix_agent::model::observed::Observed;
use otherix_testkit::cases::for_each_case;
use serde::Deserialize;
use serde_json::{Value, json};

/// The content of `desired.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DesiredCase {
    current: bool,
    desired: Desired,
    #[serde(default)]
    failures: Failures,
    /// Later notifications of the links of `current.json`.
    #[serde(default)]
    then: Vec<Link>,
}

#[test]
fn the_plan_of_each_case_is_as_expected() {
    for_each_case("tests/cases", |case| {
        let mut observed: Observed = case.current();
        let DesiredCase { current, desired, failures, then } = case.desired();
        for link in then {
            observed.apply(LinkChange::Seen(link), &BTreeSet::new());
        }
        plan(PlanInputs::new(KINDS, &desired, &observed, &failures).current(current))
    });
}

/// What earlier plans remembered must not change a plan, whatever has changed since: filter, ports, uplinks.
#[test]
fn a_plan_is_the_same_with_what_earlier_plans_remembered() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/nat-foreign-drop-policy-and-bridge-calls");
    let read = |file: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(format!("{folder}/{file}")).unwrap()).unwrap()
    };
    let DesiredCase { current, desired, failures, .. } = serde_json::from_value(read("desired.json")).unwrap();
    let bridged = || {
        let chains = json!({ "c": { "base": { "hook": "forward", "drops": true } } });
        json!([{ "family": "bridge", "name": "t", "chains": chains }])
    };
    let port =
        |index: u32| json!({ "index": index, "name": format!("p-{index}"), "mtu": 1500, "up": true, "master": 2 });
    let unchanged = |_: &mut Value| {};
    let accepts = |state: &mut Value| state["foreign"][0]["chains"]["FORWARD"]["base"]["drops"] = false.into();
    let other_table = |state: &mut Value| state["foreign"][0]["name"] = "other".into();
    let one_port = |state: &mut Value| {
        state["foreign"] = bridged();
        state["links"].as_array_mut().unwrap().push(port(11));
    };
    let two_ports = |state: &mut Value| {
        state["foreign"] = bridged();
        state["links"].as_array_mut().unwrap().extend([port(11), port(12)]);
    };
    let no_uplink = |state: &mut Value| drop(state["ip"]["routes"].as_array_mut().unwrap().remove(0));
    let changes: [&dyn Fn(&mut Value); 10] = [
        &unchanged,
        &accepts,
        &unchanged,
        &other_table,
        &one_port,
        &two_ports,
        &one_port,
        &no_uplink,
        &unchanged,
        &two_ports,
    ];
    let (mut memos, mut plans) = (Memos::default(), BTreeSet::new());
    for change in changes {
        let mut state = read("current.json");
        change(&mut state);
        let observed: Observed = serde_json::from_value(state).unwrap();
        let inputs = PlanInputs::new(KINDS, &desired, &observed, &failures).current(current);
        let fresh = serde_json::to_string(&plan(inputs)).unwrap();
        for _ in 0..2 {
            assert_eq!(serde_json::to_string(&plan_with(inputs, None, &mut memos)).unwrap(), fresh);
        }
        plans.insert(fresh);
    }
    assert_eq!(plans.len(), 6, "each change makes a difference");
}

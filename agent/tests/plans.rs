//! The plan of each folder of `cases/`: `current.json` is the observed state, `desired.json` the desired state and
//! later notifications, `expected.json` the plan.

use std::collections::BTreeSet;

use otherix_agent::device::KINDS;
use otherix_agent::engine::{Failures, PlanInputs, plan};
use otherix_agent::model::desired::Desired;
use otherix_agent::model::link::{Link, LinkChange};
use otherix_agent::model::observed::Observed;
use otherix_testkit::cases::for_each_case;
use serde::Deserialize;

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

//! What is pinned here: for each folder of `cases/`, the plan for its links and its networks.

use otherix_agent::model::desired::Desired;
use otherix_agent::model::observed::Observed;
use otherix_agent::model::plan::{Failures, plan};
use otherix_testkit::cases::for_each_case;
use serde::Deserialize;

/// `desired.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    current: bool,
    desired: Desired,
    #[serde(default)]
    failures: Failures,
}

#[test]
fn each_case_has_its_plan() {
    for_each_case("tests/cases", |case| {
        let observed: Observed = case.current();
        let Wanted { current, desired, failures } = case.desired();
        plan(&desired, &observed, &failures, current)
    });
}

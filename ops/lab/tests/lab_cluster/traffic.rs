//! A few random breaks of nodes' networks, judged by traffic; many are made manually, with `make traffic`.

use std::path::Path;
use std::process::Command;

use otherix_testkit::python::interpreter;

const TRAFFIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../soak/traffic.py");

/// The limit on how long a status may contradict traffic is longer by this many seconds: other tests are running.
const SLACK: &str = "6";

/// Seconds until a run that hangs is ended with its logs kept, well before the test runner ends the test without them.
const LIMIT: &str = "240";

#[test]
fn lab_cluster_traffic() {
    let programs = Path::new(env!("CARGO_BIN_EXE_otherix-lab")).parent().unwrap();
    let name = otherix_testkit::lab_name::lab_name("traffic");
    let status = Command::new(interpreter())
        .args([TRAFFIC, "--breaks", "4", "--seed", "45", "--short", "--hold", "2", "3", "--slack", SLACK])
        .args(["--limit", LIMIT, "--lab", &name])
        .env("OTHERIX_BIN_DIR", programs)
        .status()
        .expect("`make setup` creates the Python environment");
    assert!(status.success(), "see the output above");
}

//! A few random breaks of nodes' networks, judged by traffic; many are made manually, with `make traffic`.

use std::path::Path;
use std::process::Command;

use otherix_testkit::python::interpreter;

const TRAFFIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../soak/traffic.py");

/// The limit on how long a status may contradict traffic is longer by this many seconds: other tests are running.
const SLACK: &str = "6";

#[test]
fn lab_cluster_traffic() {
    let programs = Path::new(env!("CARGO_BIN_EXE_otherix-lab")).parent().unwrap();
    let name = otherix_testkit::lab_name::lab_name("traffic");
    let output = Command::new(interpreter())
        .args([TRAFFIC, "--breaks", "4", "--seed", "45", "--short", "--hold", "2", "3", "--slack", SLACK])
        .args(["--lab", &name])
        .env("OTHERIX_BIN_DIR", programs)
        .output()
        .expect("`make setup` creates the Python environment");
    let output_text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output_text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{output_text}");
}

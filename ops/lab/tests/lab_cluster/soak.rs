//! A short soak test; the one of ten minutes is run manually, with `make soak`.

use std::path::Path;
use std::process::Command;

use otherix_testkit::python::interpreter;

const SOAK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../soak/soak.py");

#[test]
fn lab_cluster_soak() {
    let programs = Path::new(env!("CARGO_BIN_EXE_otherix-lab")).parent().unwrap();
    let name = otherix_testkit::lab_name::lab_name("soak");
    let status = Command::new(interpreter())
        .args([SOAK, "--seconds", "12", "--seed", "45", "--nodes", "2", "--lab", &name])
        .env("OTHERIX_BIN_DIR", programs)
        .status()
        .expect("`make setup` creates the Python environment");
    assert!(status.success(), "see the output above");
}

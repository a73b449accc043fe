//! Names of labs that tests create.

use std::fs::OpenOptions;
use std::io::Write;

/// The variable with the path of the file that `ops/check` reads the labs of its tests from: labs of others that exist
/// on the machine are none of its business.
const RECORD: &str = "OTHERIX_TEST_LABS";

/// Returns the name of a lab of this process, and records it for `ops/check`.
pub fn lab_name(test: &str) -> String {
    let name = format!("{test}-{}", std::process::id());
    if let Some(path) = std::env::var_os(RECORD) {
        let mut record = OpenOptions::new().append(true).open(path).expect("the record of labs exists");
        record.write_all(format!("{name}\n").as_bytes()).expect("the record of labs is writable");
    }
    name
}

//! Independent programs read a log that we have written to a folder: `tlog-scales` in Python, and `openssl` for one
//! signature. `make verify-go` does the same with Go's reference implementation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use otherix_tlog::{Note, VerifierKey};
use tempfile::TempDir;

#[path = "../../examples/sample_log/log.rs"]
mod sample;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Writes a log with checkpoints at these sizes.
fn written(sizes: &[u64]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    sample::write(folder.path(), sizes).unwrap();
    folder
}

/// Runs the Python verifier on a log; returns what it printed, or its error.
fn tlog_scales(folder: &Path) -> Result<String, String> {
    let interpreter = project().join(".tools/venv/bin/python");
    let mut command = Command::new(&interpreter);
    command.arg("-c").arg(include_str!("verify.py")).arg(folder).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{}: {error}: run `make setup`", interpreter.display()))?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn tlog_scales_verifies_our_log() {
    for sizes in [&[1][..], &[255, 256], &[3, 70, 257, 700]] {
        let folder = written(sizes);
        let last = sizes.last().unwrap();
        let expected = format!("checkpoint, witness, {} consistency proofs, {last} entries\n", sizes.len());
        assert_eq!(tlog_scales(folder.path()).unwrap(), expected, "{sizes:?}");
    }
}

#[test]
fn tlog_scales_refuses_an_altered_log() {
    // Each alteration is found by the part of the check that it concerns.
    for (file, error) in [
        ("checkpoint", "InvalidSignature"),
        ("tile/0/000", "entry 0"),
        ("tile/0/001.p/44", "root of the tiles"),
        ("tile/entries/001.p/44", "entry 256"),
        ("proof/299.tlog-proof", "InclusionProofInvalid"),
        ("consistency/70", "ConsistencyProofInvalid"),
    ] {
        let folder = written(&[70, 300]);
        let path = folder.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let at = match file {
            // A digit of the root, and of the first hash of a path.
            "checkpoint" => bytes.iter().position(|byte| *byte == b'\n').unwrap() + 8,
            "proof/299.tlog-proof" => bytes.windows(9).position(|text| text == b"index 299").unwrap() + 12,
            // The proof follows the last blank line.
            "consistency/70" => bytes.windows(2).rposition(|text| text == b"\n\n").unwrap() + 4,
            _ => 5,
        };
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        fs::write(&path, bytes).unwrap();
        let found = tlog_scales(folder.path()).unwrap_err();
        assert!(found.contains(error), "{file}: {found}");
    }
}

/// The DER encoding of an Ed25519 public key begins with this.
const DER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[test]
fn openssl_verifies_a_signature() {
    let folder = written(&[5]);
    let path = |name: &str| folder.path().join(name);
    let note = Note::parse(&fs::read(path("checkpoint")).unwrap()).unwrap();
    let key: VerifierKey = fs::read_to_string(path("vkey")).unwrap().trim_end().parse().unwrap();
    fs::write(path("key.der"), [&DER[..], key.as_bytes()].concat()).unwrap();
    fs::write(path("signature"), note.signatures()[0].signature()).unwrap();
    for (text, expected) in [(note.text().to_owned(), true), (note.text().replacen('5', "6", 1), false)] {
        fs::write(path("text"), text).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin"]);
        openssl.arg("-inkey").arg(path("key.der")).arg("-in").arg(path("text"));
        openssl.arg("-sigfile").arg(path("signature")).stdin(Stdio::null());
        let output = openssl.output().unwrap();
        assert_eq!(output.status.success(), expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
}

//! Promise: a VNFCI's vendor can open our envelopes with what the documentation says, without our code.
//!
//! Method: the Python client of docs/clients/python, written from the documentation with Python's own `cryptography`,
//! runs its tests, among them every envelope vector.

use std::path::Path;
use std::process::Command;

#[test]
fn the_python_client_passes_its_own_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "{} is not there: run `make tools`", python.display());
    let output = Command::new(python)
        .args(["-B", "-m", "unittest"])
        .current_dir(root.join("docs/clients/python"))
        .output()
        .unwrap_or_else(|error| panic!("python: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    // "Ran 0 tests" is a success, too.
    assert!(told.contains("Ran 8 tests"), "{told}");
}

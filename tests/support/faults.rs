//! The PKCS#11 module that fails on command (`softhsm/fault`), and how it is told.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Builds the module, once per process, and gives its path.
pub fn faulty_module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // A target directory of its own: whoever runs the tests may hold the lock of the other one.
        let target = root.join("target/fault");
        let built = std::process::Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--package", "pkcs11-fault", "--target-dir"])
            .arg(&target)
            .current_dir(root)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        target.join("debug/libpkcs11_fault.so")
    })
}

/// The control file of one site's module; `softhsm/fault/src/rules.rs` says what can be written into it.
pub struct Faults(PathBuf);

impl Faults {
    pub fn new(directory: &Path) -> Self {
        Self(directory.join("faults"))
    }

    pub fn control(&self) -> &Path {
        &self.0
    }

    /// From now on these rules, one per line, and no others.
    pub fn set(&self, rules: &str) {
        self.clear();
        for file in std::fs::read_dir(self.0.parent().unwrap()).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("faults.") {
                std::fs::remove_file(path).unwrap();
            }
        }
        // Never seen half-written.
        let new = self.0.with_extension("new");
        std::fs::write(&new, rules).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }

    /// No faults from now on.
    pub fn clear(&self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }

    /// `FUNCTION FAULT PID` of every fault since the rules were set.
    pub fn injected(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.0.with_extension("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

//! A fresh token: of SoftHSM2, or of kryoptic where `KEYBROKER_TEST_KRYOPTIC` names its module (scripts/kryoptic.sh).

use keybroker::hsm::softhsm::SoftHsmToken;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes one, labelled keybroker, with its files in `directory`.
pub(crate) fn fresh_token(directory: &Path, worker_program: &Path) -> SoftHsmToken {
    match std::env::var_os("KEYBROKER_TEST_KRYOPTIC") {
        Some(module) => kryoptic(directory, module.into()),
        None => SoftHsmToken::create(directory, "keybroker", worker_program).unwrap(),
    }
}

/// By another PKCS#11 client, which takes a PIN from the environment.
fn kryoptic(directory: &Path, module: PathBuf) -> SoftHsmToken {
    const PIN: &str = "9517320846";
    let token = SoftHsmToken {
        module,
        label: "keybroker".into(),
        configuration: directory.join("kryoptic.conf"),
        variable: "KRYOPTIC_CONF",
        pin_file: directory.join("pin"),
    };
    let database = directory.join("token.sql").display().to_string();
    let text = format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = {database:?}\n");
    std::fs::write(&token.configuration, text).unwrap();
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.write(true).create_new(true).mode(0o600).open(&token.pin_file).unwrap();
    std::io::Write::write_all(&mut file, PIN.as_bytes()).unwrap();
    for arguments in [
        ["--init-token", "--label", "keybroker"].as_slice(),
        &["--init-pin", "--login", "--login-type", "so", "--pin", "env:USER_PIN"],
    ] {
        let made = Command::new("pkcs11-tool")
            .arg("--module")
            .arg(&token.module)
            .args(["--so-pin", "env:SO_PIN"])
            .args(arguments)
            .envs([("SO_PIN", "6048273915"), ("USER_PIN", PIN)])
            .env(token.variable, &token.configuration)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    token
}

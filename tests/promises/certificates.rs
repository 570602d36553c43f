//! Goal: relying parties that know nothing of keybroker accept what it delivers, and refuse what was given back.
//! Method: `openssl` verifies delivered certificates with our CRL, and two of its processes do mutual TLS with them.

use crate::support::mano::{By, http_get};
use crate::support::process::{Finished, run};
use crate::support::site::Site;
use crate::support::vnfci::Delivered;
use crate::support::{PATIENCE, until};
use keybroker::ca::pem;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// A delivered credential as files: certificate, issuers, key, root.
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    chain: PathBuf,
    pub(crate) key: PathBuf,
    root: PathBuf,
}

impl Files {
    pub(crate) fn write(directory: &Path, name: &str, key: &Delivered) -> Self {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let write = |file: &str, label: &str, ders: &[Vec<u8>]| {
            let path = directory.join(file);
            std::fs::write(&path, ders.iter().map(|der| pem(label, der)).collect::<String>()).unwrap();
            path
        };
        Self {
            cert: write("cert.pem", "CERTIFICATE", std::slice::from_ref(&key.certificate_der)),
            chain: write("issuers.pem", "CERTIFICATE", &key.chain_der),
            key: write("key.pem", "PRIVATE KEY", &[key.private_key.to_vec()]),
            root: write("root.pem", "CERTIFICATE", std::slice::from_ref(&key.root_der)),
        }
    }
}

/// Fetches the CRL that a certificate points to; PEM.
pub(crate) async fn crl_pem(key: &Delivered) -> String {
    let url = String::from_utf8(key.certificate_der.clone().into_iter().filter(u8::is_ascii).collect());
    let url = url.unwrap();
    let begin = url.find("http://").expect("a CRL distribution point");
    let end = begin + url[begin..].find(".crl").unwrap() + 4;
    pem("X509 CRL", &http_get(&url[begin..end]).await)
}

pub(crate) async fn verify(files: &Files, crl: &Path) -> Finished {
    let arguments = [
        "verify".into(),
        "-x509_strict".into(),
        "-crl_check".into(),
        "-CAfile".into(),
        files.root.clone(),
        "-untrusted".into(),
        files.chain.clone(),
        "-CRLfile".into(),
        crl.to_owned(),
        files.cert.clone(),
    ];
    run("openssl", arguments).await
}

/// One mutual TLS connection between `openssl s_server` and `s_client`; what the two said, and whether the client
/// was let in.
pub(crate) async fn mutual_tls(server: &Files, client: &Files, crl: &Path) -> (bool, String) {
    let port = free_port();
    let address = port.to_string();
    let mut listening = tokio::process::Command::new("openssl")
        .args([
            "s_server",
            "-accept",
            &address,
            "-Verify",
            "1",
            "-verify_return_error",
            "-crl_check",
            "-naccept",
            "1",
        ])
        .args(["-tls1_3", "-rev"])
        .arg("-cert")
        .arg(&server.cert)
        .arg("-key")
        .arg(&server.key)
        .arg("-cert_chain")
        .arg(&server.chain)
        .arg("-CAfile")
        .arg(&server.root)
        .arg("-CRL")
        .arg(crl)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let what = "openssl s_server";
    until(PATIENCE, what, async || is_listening(port).then_some(())).await;
    let mut connecting = tokio::process::Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-verify_return_error", "-tls1_3"])
        .arg("-cert")
        .arg(&client.cert)
        .arg("-key")
        .arg(&client.key)
        .arg("-cert_chain")
        .arg(&client.chain)
        .arg("-CAfile")
        .arg(&client.root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // s_server -rev answers each line reversed: application data in both directions.
    let mut input = connecting.stdin.take().unwrap();
    let written = tokio::io::AsyncWriteExt::write_all(&mut input, b"olleh\n").await;
    let mut said = Vec::new();
    let mut output = connecting.stdout.take().unwrap();
    let reading = async {
        let mut piece = [0; 4096];
        loop {
            let read = tokio::io::AsyncReadExt::read(&mut output, &mut piece).await.unwrap_or(0);
            said.extend_from_slice(&piece[..read]);
            if read == 0 || said.windows(5).any(|window| window == b"hello") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("s_client neither got an answer nor ended");
    let let_in = written.is_ok() && said.windows(5).any(|window| window == b"hello");
    drop(input);
    let _ = connecting.kill().await;
    let _ = listening.kill().await;
    let heard = listening.wait_with_output().await.unwrap();
    let text = format!("{}\n{}", String::from_utf8_lossy(&said), String::from_utf8_lossy(&heard.stderr));
    (let_in, text)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether a port of this machine is listened on, without connecting to it: `s_server` counts connections.
fn is_listening(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_accepts_what_is_delivered_and_refuses_what_was_released() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    let vnfcis = site.register(&["amf-0001", "amf-0002", "amf-0003"], &SLOTS, By::Certificate).await;
    let mut claims = Vec::new();
    for vnfci in &vnfcis {
        claims.push(vnfci.boot(&site).await);
    }
    let files: Vec<Files> = (vnfcis.iter().zip(&claims))
        .map(|(vnfci, claimed)| Files::write(site.path(), &vnfci.id, &claimed.keys[0]))
        .collect();
    let crl = site.path().join("before.crl.pem");
    std::fs::write(&crl, crl_pem(&claims[0].keys[0]).await).unwrap();
    for one in &files {
        verify(one, &crl).await.ok();
    }
    let (let_in, said) = mutual_tls(&files[0], &files[1], &crl).await;
    assert!(let_in, "{said}");
    assert!(said.contains("Verify return code: 0 (ok)") || said.contains("Verification: OK"), "{said}");

    let serials = claims[2].release(&site).await.unwrap();
    assert_eq!(serials.len(), 1);
    let crl = site.path().join("after.crl.pem");
    until(PATIENCE, "the released certificate on the CRL", async || {
        std::fs::write(&crl, crl_pem(&claims[0].keys[0]).await).unwrap();
        let found = verify(&files[2], &crl).await;
        (found.code != 0 && format!("{}{}", found.out, found.err).contains("certificate revoked"))
            .then_some(())
    })
    .await;
    verify(&files[0], &crl).await.ok();
    let (let_in, said) = mutual_tls(&files[0], &files[2], &crl).await;
    assert!(!let_in, "a released credential was let in\n{said}");
    assert!(said.contains("certificate revoked"), "{said}");
    let (let_in, said) = mutual_tls(&files[0], &files[1], &crl).await;
    assert!(let_in, "{said}");
}

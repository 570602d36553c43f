//! Goal: EST clients that know nothing of keybroker enrol and re-enrol.
//! Method: strongSwan's `pki` and BouncyCastle's EST client; openssl checks what they got.

use crate::est::{public_key, revoked, site, verified};
use crate::support::mano::By;
use crate::support::process::{Finished, run, run_with};
use crate::support::site::Site;
use std::path::Path;

const SLOTS: [(&str, &str); 1] = [("transport", "amf-transport")];

/// strongSwan's `pki`, which by itself speaks TLS 1.2, in a version.
pub(crate) async fn pki(site: &Site, tls: &str, arguments: &str) -> Finished {
    let configuration = format!("libtls {{\n version_max = {tls}\n}}\n");
    std::fs::write(site.path().join("strongswan.conf"), configuration).unwrap();
    let file = site.path().join("strongswan.conf").display().to_string();
    let script = format!("cd {} && pki {arguments}", site.path().display());
    run_with("sh", ["-c".to_owned(), script], &[("STRONGSWAN_CONF", &file)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_enrols_and_re_enrols() {
    let mut site = site().await;
    let mut serials = Vec::new();
    for tls in ["1.2", "1.3"] {
        let id = format!("amf-{tls}");
        let vnfci = site.register_one(&id, &SLOTS, By::Certificate).await;
        vnfci.initial.credential.write(site.path(), "initial");
        let url = site.est_url();
        let estca = format!("--estca --url {url} --cacert root.pem --caout ca.pem --outform pem --force");
        pki(&site, tls, &estca).await.ok();
        let mut shown = "initial".to_owned();
        for (name, subject) in
            [("one", format!("CN={id}")), ("two", "O=keybroker, OU=default, CN=amf-worker.amf-1".to_owned())]
        {
            let key = format!("--gen --type ecdsa --size 256 --outform pem > {name}.key.pem");
            pki(&site, tls, &key).await.ok();
            pki(&site, tls, &format!("--req --in {name}.key.pem --dn '{subject}' > {name}.csr")).await.ok();
            let est = format!(
                "--est --url {url} --in {name}.csr --cacert root.pem --cacert ca-1.pem --cert {shown}.cert.pem \
                 --key {shown}.key.pem --outform pem > {name}.cert.pem"
            );
            pki(&site, tls, &est).await.ok();
            let facts = verified(&site, &site.path().join(format!("{name}.cert.pem"))).await;
            assert_eq!(facts.subject, "CN=amf-worker.amf-1,OU=default,O=keybroker");
            assert_eq!(facts.public_key, public_key(&site, &format!("{name}.key.pem")).await);
            serials.push(hex::encode(&facts.serial));
            shown = name.to_owned();
        }
        let slots: Vec<_> = site.vnfci(&id).await.credentials.iter().map(|held| held.slot.clone()).collect();
        assert_eq!(slots, ["transport", "transport"]);
    }
    // By its end a VNFCI loses all of them, and relying parties learn of it.
    site.terminate_vnfci("amf-1.2").await;
    site.until("both certificates on the CRL", async |site| {
        let listed = revoked(site, "amf-1.3").await;
        (listed.contains(&serials[0]) && listed.contains(&serials[1])).then_some(())
    })
    .await;
    let listed = revoked(&site, "amf-1.3").await;
    assert!(!listed.contains(&serials[2]) && !listed.contains(&serials[3]), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bouncy_castle_enrols_and_re_enrols() {
    let site = site().await;
    for (id, label) in [("amf-0001", "-"), ("amf-0002", "vnfci-transport")] {
        let vnfci = site.register_one(id, &SLOTS, By::Certificate).await;
        let (cert, key) = vnfci.initial.credential.write(site.path(), "initial");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/BouncyCastleEst.java");
        let jars = ["bcprov", "bcpkix", "bcutil"].map(|jar| format!("/usr/share/java/{jar}.jar")).join(":");
        let server = format!("localhost:{}", site.addresses.est.port());
        let finished = run(
            "java",
            ["-cp".as_ref(), jars.as_ref(), source.as_os_str(), server.as_ref(), label.as_ref()]
                .into_iter()
                .chain([
                    site.root_pem().as_os_str(),
                    cert.as_os_str(),
                    key.as_os_str(),
                    site.path().as_os_str(),
                ]),
        )
        .await
        .ok();
        assert!(finished.out.contains("CA certificates: 2"), "{finished:?}");
        // id-ecPublicKey with its curve, and ecdsa-with-SHA256.
        let expected = if label == "-" { "CSR attributes: none" } else { "1.2.840.10045.4.3.2" };
        assert!(finished.out.contains(expected), "{finished:?}");
        let first = verified(&site, &site.path().join("first.cert.pem")).await;
        let second = verified(&site, &site.path().join("second.cert.pem")).await;
        assert_eq!((&first.subject, &first.uris), (&second.subject, &second.uris));
        assert_ne!(first.public_key, second.public_key);
    }
}

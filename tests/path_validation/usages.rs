//! What a certificate's key may be used for, held against what it is used for.

use keybroker::ca::path::{Certificate, PathError, Purpose, Rules, check_end_entity};
use keybroker::clock::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, KeyUsagePurpose};

#[test]
fn a_server_has_a_key_that_signs_enciphers_or_agrees() {
    for (usages, good) in [
        (&[][..], true),
        (&[KeyUsagePurpose::DigitalSignature], true),
        (&[KeyUsagePurpose::KeyEncipherment], true),
        (&[KeyUsagePurpose::KeyAgreement], true),
        (&[KeyUsagePurpose::ContentCommitment], false),
        (&[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign], false),
    ] {
        let mut params = CertificateParams::new(vec!["broker.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "broker");
        params.key_usages = usages.to_vec();
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let rules = Rules::new(Purpose::TlsServerOfAnyName, Timestamp::from_unix_seconds(1_800_000_000));
        let judged = check_end_entity(&Certificate::from_der(&der).unwrap(), &rules);
        match judged {
            Ok(()) => assert!(good, "{usages:?}"),
            Err(error) => assert!(!good && matches!(error, PathError::WrongUsage(_)), "{usages:?}: {error}"),
        }
    }
}

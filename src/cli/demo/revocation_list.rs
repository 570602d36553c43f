//! A relying party's view of revocation: the list is fetched where the certificate says, and verified.

use super::super::failure::Failure;
use crate::clock::{Clock, SystemClock};
use der::Decode;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    RevocationOptionsBuilder, anchor_from_trusted_cert,
};
use x509_cert::Certificate;
use x509_cert::ext::pkix::CrlDistributionPoints;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};

/// The first URL of a certificate's cRLDistributionPoints (RFC 5280 4.2.1.13).
pub(super) fn url(certificate_der: &[u8]) -> Result<String, Failure> {
    let none = || Failure::failed("the certificate names no place of its revocation list");
    let certificate = Certificate::from_der(certificate_der).map_err(Failure::failed)?;
    let extension = certificate.tbs_certificate().get_extension::<CrlDistributionPoints>();
    let (_, points) = extension.map_err(Failure::failed)?.ok_or_else(none)?;
    let names = points.0.into_iter().filter_map(|point| match point.distribution_point {
        Some(DistributionPointName::FullName(names)) => Some(names),
        _ => None,
    });
    let uri = names.flatten().find_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    });
    uri.ok_or_else(none)
}

/// One GET over plain HTTP; gives the body.
pub(super) async fn fetch(url: &str) -> Result<Vec<u8>, Failure> {
    let failed = |problem: String| Failure::failed(format!("{url}: {problem}"));
    let uri: http::Uri = url.parse().map_err(|error| failed(format!("{error}")))?;
    let host = uri.host().ok_or_else(|| failed("no host".to_owned()))?;
    let exchange = async {
        let mut stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        // HTTP/1.0: the body ends with the connection, and is never chunked (RFC 9112 6.1).
        let request = format!("GET {} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n", uri.path());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), exchange)
        .await
        .map_err(|_| failed("no answer".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .ok_or_else(|| failed("no HTTP".to_owned()))?;
    let status = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap_or_default().to_owned();
    if status.split(' ').nth(1) != Some("200") {
        return Err(failed(status));
    }
    Ok(answer[end + 4..].to_vec())
}

/// Whether a verified list revokes a certificate. `chain_der` is leaf first. The list's signature, issuer and times are
/// checked on the way: a list that is not its CA's is a failure.
pub(super) fn is_revoked(
    chain_der: &[Vec<u8>],
    anchors_der: &[Vec<u8>],
    crl: &[u8],
) -> Result<bool, Failure> {
    let invalid =
        |error: webpki::Error| Failure::failed(format!("the revocation list is not valid: {error}"));
    let chain: Vec<CertificateDer<'_>> =
        chain_der.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let (leaf, issuers) = chain.split_first().ok_or_else(|| Failure::failed("no certificate"))?;
    let roots: Vec<CertificateDer<'_>> =
        anchors_der.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let anchors =
        roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    let list = CertRevocationList::from(BorrowedCertRevocationList::from_der(crl).map_err(invalid)?);
    let lists = [&list];
    let options = RevocationOptionsBuilder::new(&lists)
        .map_err(|_| Failure::failed("no revocation list"))?
        .with_depth(webpki::RevocationCheckDepth::EndEntity)
        .with_expiration_policy(ExpirationPolicy::Enforce)
        .build();
    let now = SystemClock.now().unix_seconds();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    let leaf = EndEntityCert::try_from(leaf).map_err(invalid)?;
    let verified = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        issuers,
        time,
        KeyUsage::client_auth(),
        Some(options),
        None,
    );
    match verified {
        Ok(_) => Ok(false),
        Err(webpki::Error::CertRevoked) => Ok(true),
        Err(error) => Err(invalid(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::software_ca::SoftwareCa;
    use super::*;
    use crate::ca::{CertificateFacts, CrlEntry, SigningCa, crl};
    use crate::clock::Timestamp;
    use crate::credential::RevocationReason;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn list(ca: &SoftwareCa, revoked: &[&[u8]], until: Timestamp) -> Vec<u8> {
        let signing = SigningCa::new(&ca.certificate_der, "http://127.0.0.1/crl").unwrap();
        let entries: Vec<CrlEntry> = revoked
            .iter()
            .map(|der| CrlEntry {
                serial: CertificateFacts::parse(der).unwrap().serial.try_into().unwrap(),
                revoked_at: SystemClock.now(),
                reason: RevocationReason::CessationOfOperation,
            })
            .collect();
        let tbs = crl(&signing, None, 1, SystemClock.now().minus(HOUR), until, &entries);
        tbs.assemble(&ca.sign(&tbs.der).unwrap())
    }

    #[test]
    fn a_list_revokes_what_it_lists_and_nothing_else() {
        let now = SystemClock.now();
        let ca = SoftwareCa::new("ca", HOUR, now).unwrap();
        let [gone, living] = ["gone", "living"].map(|name| ca.client(name, "x", HOUR, now).unwrap());
        let root = [ca.certificate_der.clone()];
        let good = list(&ca, &[&gone.certificate_der], now.plus(HOUR));
        let revoked = |der: &[u8], crl: &[u8]| is_revoked(&[der.to_vec()], &root, crl);
        assert!(revoked(&gone.certificate_der, &good).unwrap());
        assert!(!revoked(&living.certificate_der, &good).unwrap());
        assert_eq!(url(&living.certificate_der).unwrap(), super::super::super::software_ca::NO_CRL);
        // Past its nextUpdate, or signed by another CA of the same name, it says nothing.
        let expired = list(&ca, &[&gone.certificate_der], now.minus(Duration::from_secs(60)));
        assert!(revoked(&gone.certificate_der, &expired).is_err());
        let forger = SoftwareCa::new("ca", HOUR, now).unwrap();
        let forged = list(&forger, &[&living.certificate_der], now.plus(HOUR));
        assert!(revoked(&living.certificate_der, &forged).is_err());
    }
}

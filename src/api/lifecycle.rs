//! `LifecycleService`: MANO announces VNFCIs and reports their end.

use super::gate::Gate;
use super::parse::{
    SLOTS_MAX, hash, invalid, next_page_token, optional, page, required, serial, timestamp, to_timestamp,
};
use super::proto::{self, lifecycle_service_server::LifecycleService};
use crate::authorisation::Rpc;
use crate::broker::BrokerError;
use crate::broker::rearm::Rearm;
use crate::broker::terminate::{ScaledIn, TerminateVnf};
use crate::broker::vnfcis::{Announcement, Registered};
use crate::credential::RevocationReason;
use crate::identity::{CertificateName, InitialCredentialKind};
use crate::nfv::VnfciId;
use crate::store::records::{CertificateRecord, CertificateSelector, Slot, Vnfci, VnfciState};
use tonic::{Request, Response, Status};

/// The most VNFCIs in one call.
const BATCH_MAX: usize = 1_000;
/// The longest name that an X.509 initial credential is pinned to.
const NAME_MAX: usize = 255;

/// The service.
pub(super) struct Lifecycle(pub(super) Gate);

#[tonic::async_trait]
impl LifecycleService for Lifecycle {
    async fn register_vnfcis(
        &self,
        request: Request<proto::RegisterVnfcisRequest>,
    ) -> Result<Response<proto::RegisterVnfcisResponse>, Status> {
        self.0
            .call(Rpc::RegisterVnfcis, request, |call, caller, message| async move {
                let request = call.request()?;
                let tenant = optional("tenant", &message.tenant)?;
                let (ids, items) = batch(message.vnfcis)?;
                let registered = call.broker.register_vnfcis(&caller, request, tenant, items).await?;
                if registered.len() != ids.len() {
                    return Err(BrokerError::Internal(format!(
                        "{} answers for {} VNFCIs",
                        registered.len(),
                        ids.len()
                    )));
                }
                let results = ids.into_iter().zip(registered).map(result).collect();
                Ok(proto::RegisterVnfcisResponse { results })
            })
            .await
    }

    async fn get_vnfci(
        &self,
        request: Request<proto::GetVnfciRequest>,
    ) -> Result<Response<proto::GetVnfciResponse>, Status> {
        self.0
            .call(Rpc::GetVnfci, request, |call, caller, message| async move {
                let tenant = optional("tenant", &message.tenant)?;
                let id = required("vnfci_id", &message.vnfci_id)?;
                let vnfci = call.broker.vnfci(&caller, tenant, id).await?;
                Ok(proto::GetVnfciResponse { vnfci: Some(shown(vnfci)) })
            })
            .await
    }

    async fn list_vnfcis(
        &self,
        request: Request<proto::ListVnfcisRequest>,
    ) -> Result<Response<proto::ListVnfcisResponse>, Status> {
        self.0
            .call(Rpc::ListVnfcis, request, |call, caller, message| async move {
                let tenant = optional("tenant", &message.tenant)?;
                let vnf_instance = optional("vnf_instance_id", &message.vnf_instance_id)?;
                let page = page(message.page_size, &message.page_token)?;
                let vnfcis = call.broker.vnfcis(&caller, tenant, vnf_instance, page.clone()).await?;
                Ok(proto::ListVnfcisResponse {
                    next_page_token: next_page_token(&vnfcis, &page, |vnfci| {
                        format!("{}/{}", vnfci.tenant, vnfci.id)
                    }),
                    vnfcis: vnfcis.into_iter().map(shown).collect(),
                })
            })
            .await
    }

    async fn terminate_vnfci(
        &self,
        request: Request<proto::TerminateVnfciRequest>,
    ) -> Result<Response<proto::TerminateVnfciResponse>, Status> {
        self.0
            .call(Rpc::TerminateVnfci, request, |call, caller, message| async move {
                let tenant = optional("tenant", &message.tenant)?;
                let id = required("vnfci_id", &message.vnfci_id)?;
                let request = call.request()?;
                let ended =
                    call.broker.terminate_vnfci(&caller, request, tenant, id, message.storage_wiped).await?;
                Ok(proto::TerminateVnfciResponse {
                    serials: ended.serials,
                    newly_terminated: ended.newly_terminated,
                })
            })
            .await
    }

    async fn rearm_vnfcis(
        &self,
        request: Request<proto::RearmVnfcisRequest>,
    ) -> Result<Response<proto::RearmVnfcisResponse>, Status> {
        self.0
            .call(Rpc::RearmVnfcis, request, |call, caller, message| async move {
                let request = call.request()?;
                let tenant = optional("tenant", &message.tenant)?;
                let (ids, items) = parsed_each(message.vnfcis, |item| &item.vnfci_id, rearming)?;
                let rearmed = call.broker.rearm_vnfcis(&caller, request, tenant, items).await?;
                let results = ids.into_iter().zip(rearmed).map(|item| {
                    let proto::RegisterResult { vnfci_id, error, token } = result(item);
                    proto::RearmResult { vnfci_id, error, token }
                });
                Ok(proto::RearmVnfcisResponse { results: results.collect() })
            })
            .await
    }

    async fn request_renewal(
        &self,
        request: Request<proto::RequestRenewalRequest>,
    ) -> Result<Response<proto::RequestRenewalResponse>, Status> {
        self.0
            .call(Rpc::RequestRenewal, request, |call, caller, message| async move {
                let tenant = optional("tenant", &message.tenant)?;
                let (ids, items) = named(message.vnfci_ids)?;
                let request = call.request()?;
                let requested = call.broker.request_renewal(&caller, request, tenant, items).await?;
                let result = |(vnfci_id, outcome)| match outcome {
                    Ok(newly_requested) => {
                        proto::RenewalResult { vnfci_id, newly_requested, ..Default::default() }
                    }
                    Err(error) => proto::RenewalResult { vnfci_id, error, ..Default::default() },
                };
                let results = ids.into_iter().zip(requested).map(result).collect();
                Ok(proto::RequestRenewalResponse { results })
            })
            .await
    }

    async fn scale_in(
        &self,
        request: Request<proto::ScaleInRequest>,
    ) -> Result<Response<proto::ScaleInResponse>, Status> {
        self.0
            .call(Rpc::ScaleIn, request, |call, caller, message| async move {
                let tenant = optional("tenant", &message.tenant)?;
                let (ids, items) = named(message.vnfci_ids)?;
                let request = call.request()?;
                let ended =
                    call.broker.scale_in(&caller, request, tenant, items, message.storage_wiped).await?;
                let results = ids.into_iter().zip(ended).map(scaled_in).collect();
                Ok(proto::ScaleInResponse { results })
            })
            .await
    }

    async fn terminate_vnf(
        &self,
        request: Request<proto::TerminateVnfRequest>,
    ) -> Result<Response<proto::TerminateVnfResponse>, Status> {
        self.0
            .call(Rpc::TerminateVnf, request, |call, caller, message| async move {
                let expected_count = message.expected_count.ok_or_else(|| {
                    invalid("expected_count", "is missing: say how many live VNFCIs the VNF instance has")
                })?;
                let terminate = TerminateVnf {
                    request: call.request()?,
                    tenant: optional("tenant", &message.tenant)?,
                    vnf_instance: required("vnf_instance_id", &message.vnf_instance_id)?,
                    expected_count,
                    storage_wiped: message.storage_wiped,
                };
                let ended = call.broker.terminate_vnf(&caller, terminate).await?;
                Ok(proto::TerminateVnfResponse { terminated: ended.vnfcis, certificates: ended.certificates })
            })
            .await
    }

    async fn revoke_certificate(
        &self,
        request: Request<proto::RevokeCertificateRequest>,
    ) -> Result<Response<proto::RevokeCertificateResponse>, Status> {
        self.0
            .call(Rpc::RevokeCertificate, request, |call, caller, message| async move {
                let reason = revocation_reason(message.reason)?;
                let tenant = optional("tenant", &message.tenant)?;
                let mut selectors = Vec::new();
                let one = !message.issuer_id.is_empty()
                    || !message.serial.is_empty()
                    || message.certificates.is_empty();
                if one {
                    selectors.push(by_serial("", &message.issuer_id, &message.serial)?);
                }
                for (i, selector) in message.certificates.into_iter().enumerate() {
                    selectors.push(certificate_selector(i, selector)?);
                }
                let request = call.request()?;
                let mut revoked =
                    call.broker.revoke_certificates(&caller, request, tenant, selectors, reason).await?;
                if one && revoked.first().is_some_and(Option::is_none) {
                    let what = format!("certificate {} of issuer {}", message.serial, message.issuer_id);
                    return Err(BrokerError::NotFound(what));
                }
                let total: u64 = revoked.iter().flatten().map(|&newly| u64::from(newly)).sum();
                let results = revoked.drain(usize::from(one)..).map(revoke_result).collect();
                Ok(proto::RevokeCertificateResponse { newly_revoked: total > 0, revoked: total, results })
            })
            .await
    }
}

/// The items of a batch: what was asked for, or the id as written and what is wrong with it.
type Items<T> = Vec<Result<T, (String, String)>>;

/// The ids as they were written, and the items: one that does not parse is refused by itself.
fn parsed_each<Q, T>(
    items: Vec<Q>,
    id: impl Fn(&Q) -> &str,
    parse: impl Fn(Q) -> Result<T, BrokerError>,
) -> Result<(Vec<String>, Items<T>), BrokerError> {
    if items.is_empty() || items.len() > BATCH_MAX {
        return Err(invalid("vnfcis", format!("has {} items; give 1 to {BATCH_MAX}", items.len())));
    }
    Ok(items
        .into_iter()
        .map(|item| {
            // Echoed in the answer, so that a caller finds its item again; not trusted further.
            let id: String = id(&item).chars().take(255).collect();
            let parsed = parse(item).map_err(|problem| (id.clone(), problem.to_string()));
            (id, parsed)
        })
        .unzip())
}

pub(super) fn batch(vnfcis: Vec<proto::NewVnfci>) -> Result<(Vec<String>, Items<Announcement>), BrokerError> {
    parsed_each(vnfcis, |item| &item.vnfci_id, announcement)
}

/// The ids as they were written, and as they parsed: one that does not is refused by itself.
#[allow(clippy::type_complexity, reason = "two columns of one batch")]
pub(super) fn named(ids: Vec<String>) -> Result<(Vec<String>, Vec<Result<VnfciId, String>>), BrokerError> {
    if ids.is_empty() || ids.len() > BATCH_MAX {
        return Err(invalid("vnfci_ids", format!("has {} items; give 1 to {BATCH_MAX}", ids.len())));
    }
    let parse = |id: String| {
        let parsed = required("vnfci_id", &id).map_err(|problem| problem.to_string());
        (id.chars().take(255).collect(), parsed)
    };
    Ok(ids.into_iter().map(parse).unzip())
}

fn announcement(item: proto::NewVnfci) -> Result<Announcement, BrokerError> {
    let credential = given(item.initial_credential)?;
    Ok(Announcement {
        id: required("vnfci_id", &item.vnfci_id)?,
        vnf_instance: required("vnf_instance_id", &item.vnf_instance_id)?,
        vdu: required("vdu_id", &item.vdu_id)?,
        slots: slots(&item.slots)?,
        initial_credential: initial_credential(credential.kind)?,
        expires_at: timestamp("initial_credential.expires_at", credential.expires_at)?,
    })
}

pub(super) fn rearming(item: proto::Rearming) -> Result<Rearm, BrokerError> {
    let credential = given(item.initial_credential)?;
    Ok(Rearm {
        id: required("vnfci_id", &item.vnfci_id)?,
        initial_credential: initial_credential(credential.kind)?,
        expires_at: timestamp("initial_credential.expires_at", credential.expires_at)?,
    })
}

fn given(credential: Option<proto::InitialCredential>) -> Result<proto::InitialCredential, BrokerError> {
    credential.ok_or_else(|| {
        invalid("initial_credential", "is missing: say by which X.509 certificate or token it is recognised")
    })
}

fn slots(slots: &[proto::Slot]) -> Result<Vec<Slot>, BrokerError> {
    if slots.is_empty() || slots.len() > SLOTS_MAX {
        return Err(invalid("slots", format!("has {} entries; give 1 to {SLOTS_MAX}", slots.len())));
    }
    let mut parsed: Vec<Slot> = Vec::with_capacity(slots.len());
    for (i, slot) in slots.iter().enumerate() {
        let name = required(&format!("slots[{i}].name"), &slot.name)?;
        if parsed.iter().any(|earlier| earlier.name == name) {
            return Err(invalid(format!("slots[{i}].name"), format!("{name} was named before")));
        }
        parsed.push(Slot { name, pool: required(&format!("slots[{i}].pool"), &slot.pool)? });
    }
    Ok(parsed)
}

fn initial_credential(
    kind: Option<proto::initial_credential::Kind>,
) -> Result<InitialCredentialKind, BrokerError> {
    use proto::initial_credential::Kind;
    use proto::x509_initial_credential::Pin;
    match kind {
        Some(Kind::Token(proto::TokenInitialCredential {})) => Ok(InitialCredentialKind::Token),
        Some(Kind::X509(x509)) => {
            let anchor = required("initial_credential.x509.anchor", &x509.anchor)?;
            match x509.pin {
                Some(Pin::CertificateSha256(fingerprint)) => Ok(InitialCredentialKind::X509Fingerprint {
                    anchor,
                    fingerprint: hash("initial_credential.x509.certificate_sha256", &fingerprint)?,
                }),
                Some(Pin::Name(name)) => Ok(InitialCredentialKind::X509Name {
                    anchor,
                    name: pinned_name("initial_credential.x509.name", &name)?,
                }),
                None => Err(invalid(
                    "initial_credential.x509",
                    "names no certificate: give certificate_sha256, or a name of its SAN",
                )),
            }
        }
        None => Err(invalid("initial_credential", "has no kind: give x509 or token")),
    }
}

/// A name that a certificate is recognised by.
fn pinned_name(field: &str, name: &str) -> Result<CertificateName, BrokerError> {
    let printable = |text: &str| !text.trim().is_empty() && !text.chars().any(char::is_control);
    let problem = match name.parse() {
        _ if name.len() > NAME_MAX => "is longer than 255 bytes",
        Ok(parsed) if name.bytes().all(|byte| byte.is_ascii_graphic()) => return Ok(parsed),
        // A common name may have spaces and letters of any language.
        Ok(parsed) if name.strip_prefix("cn:").is_some_and(printable) => return Ok(parsed),
        _ => "is not dns:NAME, uri:URI (printable ASCII) or cn:COMMON NAME",
    };
    Err(invalid(field, problem))
}

fn by_serial(prefix: &str, issuer: &str, number: &str) -> Result<CertificateSelector, BrokerError> {
    let issuer = required(&format!("{prefix}issuer_id"), issuer)?;
    let field = format!("{prefix}serial");
    let number = hex::decode(serial(&field, number)?).map_err(|problem| invalid(field, problem))?;
    Ok(CertificateSelector::Serial(issuer, number))
}

fn certificate_selector(
    i: usize,
    selector: proto::CertificateSelector,
) -> Result<CertificateSelector, BrokerError> {
    use proto::certificate_selector::Certificates;
    let field = format!("certificates[{i}]");
    match selector.certificates {
        Some(Certificates::IssuerAndSerial(named)) => {
            by_serial(&format!("{field}."), &named.issuer_id, &named.serial)
        }
        Some(Certificates::CredentialId(id)) => {
            Ok(CertificateSelector::Credential(required(&format!("{field}.credential_id"), &id)?))
        }
        Some(Certificates::VnfciId(id)) => {
            Ok(CertificateSelector::Vnfci(required(&format!("{field}.vnfci_id"), &id)?))
        }
        None => Err(invalid(field, "is empty: give issuer_and_serial, credential_id or vnfci_id")),
    }
}

fn revoke_result(newly: Option<u32>) -> proto::RevokeResult {
    match newly {
        Some(revoked) => proto::RevokeResult { error: String::new(), revoked },
        None => {
            let error = "has no certificate in this tenant: compare it with `vnfci show`".to_owned();
            proto::RevokeResult { error, revoked: 0 }
        }
    }
}

fn revocation_reason(reason: i32) -> Result<RevocationReason, BrokerError> {
    use proto::RevocationReason as Named;
    match Named::try_from(reason) {
        Ok(Named::Unspecified) => Ok(RevocationReason::Unspecified),
        Ok(Named::KeyCompromise) => Ok(RevocationReason::KeyCompromise),
        Ok(Named::AffiliationChanged) => Ok(RevocationReason::AffiliationChanged),
        Ok(Named::Superseded) => Ok(RevocationReason::Superseded),
        Ok(Named::CessationOfOperation) => Ok(RevocationReason::CessationOfOperation),
        Ok(Named::CaCompromise) => Ok(RevocationReason::CaCompromise),
        Ok(Named::PrivilegeWithdrawn) => Ok(RevocationReason::PrivilegeWithdrawn),
        Err(_) => Err(invalid("reason", format!("{reason} is not a reason that this version knows"))),
    }
}

fn result((vnfci_id, registered): (String, Registered)) -> proto::RegisterResult {
    let (error, token) = match registered {
        Registered::Done(_, token) => {
            (String::new(), token.map(|token| token.as_str().to_owned()).unwrap_or_default())
        }
        Registered::Refused(_, error) => (error, String::new()),
    };
    proto::RegisterResult { vnfci_id, error, token }
}

fn scaled_in((vnfci_id, ended): (String, ScaledIn)) -> proto::ScaleInResult {
    match ended {
        Ok(ended) => proto::ScaleInResult {
            vnfci_id,
            error: String::new(),
            serials: ended.serials,
            newly_terminated: ended.newly_terminated,
        },
        Err(error) => proto::ScaleInResult { vnfci_id, error, serials: Vec::new(), newly_terminated: false },
    }
}

fn shown(vnfci: Vnfci) -> proto::Vnfci {
    let state = match vnfci.state {
        VnfciState::Registered => proto::VnfciState::Registered,
        VnfciState::Active => proto::VnfciState::Active,
        VnfciState::Released => proto::VnfciState::Released,
        VnfciState::Terminated => proto::VnfciState::Terminated,
    };
    proto::Vnfci {
        tenant: vnfci.tenant.into(),
        vnfci_id: vnfci.id.into(),
        vnf_instance_id: vnfci.vnf_instance.into(),
        vdu_id: vnfci.vdu.into(),
        state: state.into(),
        slots: vnfci
            .slots
            .into_iter()
            .map(|slot| proto::Slot { name: slot.name.into(), pool: slot.pool.into() })
            .collect(),
        credentials: vnfci.credentials.into_iter().map(credential).collect(),
        registered_at: to_timestamp(vnfci.registered_at),
        initial_credential_state: vnfci.initial_credential.state.to_string(),
        initial_credential_expires_at: to_timestamp(vnfci.initial_credential.expires_at),
        renewal_requested_at: vnfci.renewal_requested_at.and_then(to_timestamp),
    }
}

fn credential(certificate: CertificateRecord) -> proto::Credential {
    proto::Credential {
        credential_id: certificate.credential.id.to_string(),
        slot: certificate.slot.map(String::from).unwrap_or_default(),
        public_key_sha256: certificate.credential.public_key.0.to_vec(),
        serial: certificate.serial,
        key_state: certificate.key_state.to_string(),
        certificate_state: certificate.state.to_string(),
        not_before: to_timestamp(certificate.not_before),
        not_after: to_timestamp(certificate.not_after),
        issuer_id: certificate.issuer.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::initial_credential::Kind;
    use proto::x509_initial_credential::Pin;

    fn announced() -> proto::NewVnfci {
        proto::NewVnfci {
            vnfci_id: "amf-0001".into(),
            vnf_instance_id: "amf".into(),
            vdu_id: "worker".into(),
            slots: vec![proto::Slot { name: "transport".into(), pool: "amf-transport".into() }],
            initial_credential: Some(proto::InitialCredential {
                kind: Some(Kind::Token(proto::TokenInitialCredential {})),
                expires_at: None,
            }),
        }
    }

    #[test]
    fn a_malformed_item_is_refused_by_itself_and_named() {
        let mut bad = announced();
        bad.slots.push(proto::Slot { name: "transport".into(), pool: "other".into() });
        let (ids, items) = batch(vec![announced(), bad, announced()]).unwrap();
        assert_eq!(ids.len(), 3);
        assert!(items[0].is_ok() && items[2].is_ok());
        let (id, problem) = items[1].as_ref().unwrap_err();
        assert_eq!(
            (id.as_str(), problem.as_str()),
            ("amf-0001", "slots[1].name: transport was named before")
        );
    }

    #[test]
    fn a_batch_has_one_to_a_thousand_items() {
        assert!(batch(vec![]).is_err());
        assert!(batch(vec![announced(); 1_000]).is_ok());
        assert!(batch(vec![announced(); 1_001]).is_err());
    }

    #[test]
    fn a_vnfci_has_one_to_sixteen_slots() {
        let slot = |n: usize| proto::Slot { name: format!("s{n}"), pool: "p".into() };
        assert!(slots(&[]).is_err());
        assert!(slots(&(0..16).map(slot).collect::<Vec<_>>()).is_ok());
        assert!(slots(&(0..17).map(slot).collect::<Vec<_>>()).is_err());
    }

    #[test]
    fn an_x509_initial_credential_pins_a_certificate_or_a_name() {
        let x509 = |pin| {
            initial_credential(Some(Kind::X509(proto::X509InitialCredential { anchor: "vim".into(), pin })))
        };
        assert!(x509(None).is_err());
        assert!(x509(Some(Pin::CertificateSha256(vec![0; 31]))).is_err());
        assert!(x509(Some(Pin::CertificateSha256(vec![0; 32]))).is_ok());
        for good in ["dns:a.example", "uri:urn:uuid:1", "cn:Worker 1"] {
            assert!(x509(Some(Pin::Name(good.into()))).is_ok(), "{good}");
        }
        for bad in ["", "a.example", "dns:", "dns:a b", "cn: ", "ip:1.2.3.4", "DNS:a"] {
            assert!(x509(Some(Pin::Name(bad.into()))).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_revocation_reason_has_its_domain_word() {
        let parsed: Vec<_> = (0..7).map(|reason| revocation_reason(reason).unwrap()).collect();
        assert_eq!(parsed, RevocationReason::ALL);
        assert!(revocation_reason(7).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_but_never_a_panic(
            vnfci_id in ".*", name in ".*", pool in ".*", pin in ".*",
            hash in proptest::collection::vec(any::<u8>(), 0..40), by_name in any::<bool>(),
        ) {
            let pin = if by_name { Pin::Name(pin) } else { Pin::CertificateSha256(hash) };
            let item = proto::NewVnfci {
                vnfci_id,
                slots: vec![proto::Slot { name, pool }],
                initial_credential: Some(proto::InitialCredential {
                    kind: Some(Kind::X509(proto::X509InitialCredential { anchor: "a".into(), pin: Some(pin) })),
                    expires_at: None,
                }),
                ..announced()
            };
            let (ids, _) = batch(vec![item]).unwrap();
            prop_assert!(ids[0].chars().count() <= 255);
        }
    }
}

//! The trait over the statements: which of them, in what kind of transaction.

use super::*;
use crate::store::*; // The names that the trait speaks of.
use change::{Keep, Once};
use engine::{Engine, change, read, snapshot, write};
use std::sync::Arc;

#[async_trait]
impl<E: Engine> Store for SqlStore<E> {
    async fn now(&self) -> Result<Timestamp> {
        self.engine.now().await
    }

    fn generation(&self) -> Option<u64> {
        self.engine.generation()
    }

    fn continuity(&self) -> &Continuity {
        self.engine.continuity()
    }

    async fn look_back(&self) -> Result<()> {
        let continuity = self.engine.continuity();
        read!(self, |tx| witnesses::look(tx, continuity)).map(drop)
    }

    async fn check(&self) -> Result<()> {
        write!(self, |tx, now| leases::set_mark(tx, "writable_at", &now.to_string()))?;
        self.try_room().await
    }

    async fn add_tenant(&self, tenant: Tenant, mutation: Mutation<()>) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| tenants::add(tx, &tenant))
    }

    async fn tenants(&self) -> Result<Vec<Tenant>> {
        read!(self, |tx| tenants::list(tx))
    }

    async fn remove_tenant(&self, tenant: &TenantId, mutation: Mutation<()>) -> Result<()> {
        let tenant = tenant.clone();
        change!(self, Outcome, mutation, |tx, now| tenants::remove(tx, &tenant, now))
    }

    async fn quotas_used(&self) -> Result<BTreeMap<TenantId, Quotas>> {
        read!(self, |tx| quotas::used(tx))
    }

    async fn add_anchor(&self, anchor: Anchor, mutation: Mutation<()>) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| anchors::add(tx, &anchor))
    }

    async fn anchors(&self, tenant: Option<&TenantId>) -> Result<Vec<Anchor>> {
        read!(self, |tx| anchors::list(tx, tenant))
    }

    async fn update_anchor(&self, update: AnchorUpdate, mutation: Mutation<()>) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| anchor_crls::update(tx, &update, now))
    }

    async fn anchor_crls(&self) -> Result<Vec<AnchorCrl>> {
        read!(self, |tx| anchor_crls::list(tx))
    }

    async fn anchor_crl(&self, fingerprint: Sha256Hash) -> Result<Option<Vec<u8>>> {
        read!(self, |tx| anchor_crls::one(tx, fingerprint))
    }

    async fn remove_anchor(
        &self,
        tenant: &TenantId,
        name: &AnchorName,
        mutation: Mutation<()>,
    ) -> Result<()> {
        let (tenant, name) = (tenant.clone(), name.clone());
        change!(self, Outcome, mutation, |tx, now| anchors::remove(tx, &tenant, &name))
    }

    async fn add_identity(&self, identity: Identity, mutation: Mutation<()>) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| identities::add(tx, &identity))
    }

    async fn identities(&self) -> Result<Vec<Identity>> {
        read!(self, |tx| identities::list(tx))
    }

    async fn identity_by_fingerprint(&self, fingerprint: Sha256Hash) -> Result<Option<Identity>> {
        read!(self, |tx| identities::by_fingerprint(tx, fingerprint))
    }

    async fn renew_identity(&self, renewal: IdentityRenewal, mutation: Mutation<()>) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| identities::renew(tx, &renewal, now))
    }

    async fn remove_identity(&self, name: &IdentityName, mutation: Mutation<()>) -> Result<()> {
        let name = name.clone();
        change!(self, Outcome, mutation, |tx, now| identities::remove(tx, &name))
    }

    async fn add_issuer(&self, issuer: IssuerRecord, mutation: Mutation<()>) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| issuers::add(tx, &issuer))
    }

    async fn issuers(&self) -> Result<Vec<IssuerRecord>> {
        read!(self, |tx| issuers::list(tx))
    }

    async fn issuer_count(&self) -> Result<u64> {
        read!(self, |tx| issuers::count(tx))
    }

    async fn create_pool(&self, pool: Pool, quotas: &Quotas, mutation: Mutation<Pool>) -> Result<Pool> {
        let quotas = *quotas;
        change!(self, Outcome, mutation, |tx, now| pools::create(tx, pool, &quotas))
    }

    async fn pool(&self, tenant: &TenantId, name: &PoolName) -> Result<Pool> {
        read!(self, |tx| pools::by_name(tx, tenant, name))
    }

    async fn pools(&self, filter: &PoolFilter, page: &Page) -> Result<Vec<Pool>> {
        read!(self, |tx| pools::list(tx, filter, page))
    }

    async fn pool_levels(&self, pool: PoolId) -> Result<PoolLevels> {
        let now = self.engine.now().await?;
        read!(self, |tx| pools::levels(tx, pool, now))
    }

    async fn update_pool(
        &self,
        tenant: &TenantId,
        name: &PoolName,
        target: u32,
        refill_below: u32,
        quotas: &Quotas,
        mutation: Mutation<Pool>,
    ) -> Result<Pool> {
        let (tenant, name, quotas) = (tenant.clone(), name.clone(), *quotas);
        change!(self, Outcome, mutation, |tx, now| pools::update(
            tx,
            &tenant,
            &name,
            target,
            refill_below,
            &quotas
        ))
    }

    async fn delete_pool(
        &self,
        tenant: &TenantId,
        name: &PoolName,
        mutation: Mutation<Pool>,
    ) -> Result<Pool> {
        let (tenant, name) = (tenant.clone(), name.clone());
        change!(self, Outcome, mutation, |tx, now| pools::delete(tx, &tenant, &name, now))
    }

    async fn deleted_pools_with_keys(&self) -> Result<Vec<Pool>> {
        read!(self, |tx| pools::deleted_with_keys(tx))
    }

    async fn erase_unclaimed(
        &self,
        pool: PoolId,
        unusable_at: Option<Timestamp>,
        end: CustodyEnd,
        limit: u32,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys> {
        change!(self, Outcome, mutation, |tx, now| credentials::erase_unclaimed(
            tx,
            pool,
            unusable_at,
            &end,
            limit,
            now
        ))
    }

    async fn create_epoch(
        &self,
        epoch: EpochId,
        tenant: &TenantId,
        mutation: Mutation<Epoch>,
    ) -> Result<Epoch> {
        let tenant = tenant.clone();
        change!(self, Outcome, mutation, |tx, now| epochs::create(tx, epoch, &tenant, now))
    }

    async fn epochs(&self, tenant: Option<&TenantId>, states: &[EpochState]) -> Result<Vec<Epoch>> {
        read!(self, |tx| epochs::list(tx, tenant, states))
    }

    async fn advance_epoch(
        &self,
        epoch: EpochId,
        change: EpochChange,
        token_serial: Option<&str>,
        mutation: Mutation<Epoch>,
    ) -> Result<Epoch> {
        let token_serial = token_serial.map(str::to_owned);
        change!(self, Outcome, mutation, |tx, now| epochs::advance(
            tx,
            epoch,
            change,
            token_serial.as_deref(),
            now
        ))
    }

    async fn live_keys(&self, epoch: EpochId, limit: u32) -> Result<Vec<LiveKey>> {
        read!(self, |tx| epochs::live_keys(tx, epoch, limit))
    }

    async fn rewrapped(
        &self,
        from: EpochId,
        to: EpochId,
        keys: Vec<(CredentialId, Vec<u8>)>,
        mutation: Mutation<Vec<CredentialId>>,
    ) -> Result<Vec<CredentialId>> {
        change!(self, Outcome, mutation, |tx, now| epochs::rewrapped(tx, from, to, keys))
    }

    async fn insert_credentials(
        &self,
        credentials: Vec<NewCredential>,
        mutation: Mutation<()>,
    ) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| credentials::insert(tx, &credentials, now))
    }

    async fn record_certificates(
        &self,
        certificates: Vec<(CredentialId, NewCertificate)>,
        mutation: Mutation<Vec<RecordOutcome>>,
    ) -> Result<Vec<RecordOutcome>> {
        change!(self, Outcome, mutation, |tx, now| certificates::record(tx, &certificates))
    }

    async fn awaiting_keys(
        &self,
        pool: PoolId,
        after: Option<CredentialId>,
        limit: u32,
    ) -> Result<Vec<AwaitingKey>> {
        read!(self, |tx| awaiting::awaiting(tx, pool, after, limit))
    }

    async fn erase_awaiting(
        &self,
        pool: PoolId,
        basis: Sha256Hash,
        end: CustodyEnd,
        limit: u32,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys> {
        change!(self, Outcome, mutation, |tx, now| awaiting::erase_outdated(
            tx, pool, basis, &end, limit, now
        ))
    }

    async fn register_vnfcis(
        &self,
        tenant: &TenantId,
        vnfcis: Vec<NewVnfci>,
        quotas: &Quotas,
        mutation: Mutation<Vec<RegisterOutcome>>,
    ) -> Result<Vec<RegisterOutcome>> {
        let (tenant, quotas) = (tenant.clone(), *quotas);
        change!(self, Outcome, mutation, |tx, now| vnfcis::register(tx, &tenant, vnfcis, &quotas, now))
    }

    async fn rearm_vnfcis(
        &self,
        tenant: &TenantId,
        vnfcis: Vec<Rearming>,
        quotas: &Quotas,
        end: CustodyEnd,
        mutation: Mutation<Vec<RearmOutcome>>,
    ) -> Result<Vec<RearmOutcome>> {
        let (tenant, quotas) = (tenant.clone(), *quotas);
        change!(self, Outcome, mutation, |tx, now| rearmings::rearm(tx, &tenant, vnfcis, &quotas, &end, now))
    }

    async fn vnfci(&self, tenant: &TenantId, vnfci: &VnfciId) -> Result<Vnfci> {
        snapshot!(self, |tx| vnfcis::by_id(tx, tenant, vnfci))
    }

    async fn vnfcis(&self, filter: &VnfciFilter, page: &Page) -> Result<Vec<Vnfci>> {
        snapshot!(self, |tx| vnfcis::list(tx, filter, page))
    }

    async fn terminate_vnfcis(
        &self,
        tenant: &TenantId,
        vnfcis: Vec<(VnfciId, Option<VnfInstanceId>)>,
        end: CustodyEnd,
        mutation: Mutation<Vec<TerminateOutcome>>,
    ) -> Result<Vec<TerminateOutcome>> {
        let tenant = tenant.clone();
        change!(self, Outcome, mutation, |tx, now| terminations::each(tx, &tenant, &vnfcis, &end, now))
    }

    async fn terminate_vnf(
        &self,
        tenant: &TenantId,
        vnf_instance: &VnfInstanceId,
        expected_count: u64,
        end: CustodyEnd,
        mutation: Mutation<TerminatedVnf>,
    ) -> Result<TerminatedVnf> {
        let (tenant, vnf_instance) = (tenant.clone(), vnf_instance.clone());
        change!(self, Outcome, mutation, |tx, now| terminations::whole_vnf(
            tx,
            &tenant,
            &vnf_instance,
            expected_count,
            &end,
            now
        ))
    }

    async fn vnf_instances(
        &self,
        tenant: &TenantId,
        vnfcis: &[VnfciId],
    ) -> Result<BTreeMap<VnfciId, VnfInstanceId>> {
        snapshot!(self, |tx| vnfcis::vnf_instances(tx, tenant, vnfcis))
    }

    async fn initial_credential(&self, id: InitialCredentialId) -> Result<Option<InitialCredential>> {
        read!(self, |tx| initial_credentials::by_id(tx, id))
    }

    async fn initial_credentials_x509(
        &self,
        tenant: &TenantId,
        anchor: &AnchorName,
        fingerprint: Sha256Hash,
        names: &[String],
    ) -> Result<Vec<InitialCredential>> {
        read!(self, |tx| initial_credentials::x509(tx, tenant, anchor, fingerprint, names))
    }

    async fn reserve_claim(
        &self,
        request: ClaimRequest,
        intend: Intend,
        mutation: Mutation<ClaimOutcome>,
    ) -> Result<ClaimOutcome> {
        let intend = Once::new(intend);
        change!(self, BodyOnly, mutation, |tx, now| claims::reserve(tx, &request, &intend, now))
    }

    async fn claim(&self, claim: ClaimId) -> Result<Option<ClaimRecord>> {
        read!(self, |tx| claims::by_id(tx, claim))
    }

    async fn confirm_claim(
        &self,
        claim: ClaimId,
        mutation: Mutation<ConfirmOutcome>,
    ) -> Result<ConfirmOutcome> {
        change!(self, BodyOnly, mutation, |tx, now| claims::confirm(tx, claim, now))
    }

    async fn record_enrolment(
        &self,
        enrolment: NewEnrolment,
        mutation: Mutation<EnrolmentOutcome>,
    ) -> Result<EnrolmentOutcome> {
        change!(self, BodyOnly, mutation, |tx, now| enrolments::record(tx, &enrolment, now))
    }

    async fn enrolment_by_certificate(&self, fingerprint: Sha256Hash) -> Result<Option<Enrolment>> {
        read!(self, |tx| enrolments::by_certificate(tx, fingerprint))
    }

    async fn enrolments(&self, arming: &InitialCredential) -> Result<Vec<Enrolment>> {
        read!(self, |tx| enrolments::of_arming(tx, &arming.tenant, &arming.vnfci, arming.id))
    }

    async fn vouched(&self, public_key: Sha256Hash) -> Result<Option<Vouched>> {
        read!(self, |tx| vouched::by_key(tx, public_key))
    }

    async fn record_vouched(
        &self,
        new: NewVouched,
        mutation: Mutation<EnrolmentOutcome>,
    ) -> Result<EnrolmentOutcome> {
        let new = Arc::new(new);
        change!(self, BodyOnly, mutation, |tx, now| vouched::record(tx, &new, now))
    }

    async fn overdue_claims(&self, now: Timestamp, limit: u32) -> Result<Vec<ClaimRecord>> {
        snapshot!(self, |tx| claims::overdue(tx, now, limit))
    }

    async fn end_absence(&self, mark: &str) -> Result<u64> {
        let mark = mark.to_owned();
        write!(self, |tx, now| claims::end_absence(tx, &mark, now))
    }

    async fn destroy_claim(
        &self,
        claim: ClaimId,
        end: CustodyEnd,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys> {
        change!(self, Outcome, mutation, |tx, now| claims::destroy(tx, claim, &end, now))
    }

    async fn release_claim(
        &self,
        claim: ClaimId,
        end: CustodyEnd,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys> {
        change!(self, BodyOnly, mutation, |tx, now| releases::release(tx, claim, &end, now))
    }

    async fn ended_overlaps(&self, now: Timestamp, limit: u32) -> Result<Vec<ClaimRecord>> {
        snapshot!(self, |tx| renewals::ended_overlaps(tx, now, limit))
    }

    async fn end_overlap(
        &self,
        claim: ClaimId,
        end: CustodyEnd,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys> {
        change!(self, Outcome, mutation, |tx, now| renewals::end_overlap(tx, claim, &end, now))
    }

    async fn request_renewals(
        &self,
        tenant: &TenantId,
        vnfcis: Vec<(VnfciId, Option<VnfInstanceId>)>,
        mutation: Mutation<Vec<RenewalRequestOutcome>>,
    ) -> Result<Vec<RenewalRequestOutcome>> {
        let tenant = tenant.clone();
        change!(self, Outcome, mutation, |tx, now| renewals::request(tx, &tenant, &vnfcis, now))
    }

    async fn certificate_by_fingerprint(&self, fingerprint: Sha256Hash) -> Result<Option<CertificateRecord>> {
        read!(self, |tx| credentials::by_fingerprint(tx, fingerprint))
    }

    async fn select_certificates(
        &self,
        tenant: &TenantId,
        selectors: &[CertificateSelector],
    ) -> Result<Vec<Vec<CertificateRecord>>> {
        snapshot!(self, |tx| credentials::selected(tx, tenant, selectors))
    }

    async fn revoke_certificates(
        &self,
        tenant: &TenantId,
        certificates: Vec<(IssuerId, Vec<u8>)>,
        reason: RevocationReason,
        mutation: Mutation<Vec<RevokeOutcome>>,
    ) -> Result<Vec<RevokeOutcome>> {
        let tenant = tenant.clone();
        change!(self, Outcome, mutation, |tx, now| credentials::revoke(
            tx,
            &tenant,
            &certificates,
            reason,
            now
        ))
    }

    async fn pending_revocations(&self, issuer: IssuerId) -> Result<u64> {
        read!(self, |tx| revocation::pending_revocations(tx, issuer))
    }

    async fn crl_entries(&self, issuer: IssuerId, unexpired_at: Timestamp) -> Result<Vec<CrlEntry>> {
        read!(self, |tx| revocation::crl_entries(tx, issuer, unexpired_at))
    }

    async fn record_crls(
        &self,
        issuer: IssuerId,
        crls: Vec<CrlRecord>,
        serials: Vec<Vec<u8>>,
        mutation: Mutation<u64>,
    ) -> Result<u64> {
        change!(self, Outcome, mutation, |tx, now| revocation::record_crls(tx, issuer, &crls, &serials))
    }

    async fn crl_heads(&self, issuer: IssuerId) -> Result<Vec<CrlHead>> {
        read!(self, |tx| revocation::crl_heads(tx, issuer))
    }

    async fn latest_crl(&self, issuer: IssuerId, shard: u32) -> Result<Option<CrlRecord>> {
        read!(self, |tx| revocation::latest_crl(tx, issuer, shard))
    }

    async fn certificate_status(&self, issuer: IssuerId, serial: &[u8]) -> Result<Option<CertificateStatus>> {
        read!(self, |tx| revocation::status(tx, issuer, serial))
    }

    async fn record_ocsp_responder(&self, responder: OcspResponder, mutation: Mutation<()>) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| revocation::record_responder(tx, &responder))
    }

    async fn ocsp_responders(&self) -> Result<Vec<OcspResponder>> {
        read!(self, |tx| revocation::responders(tx))
    }

    async fn expire_certificates(&self, now: Timestamp, limit: u32) -> Result<u64> {
        write!(self, |tx, _now| credentials::expire(tx, now, limit))
    }

    async fn custody(&self, tenant: Option<&TenantId>, credential: CredentialId) -> Result<Custody> {
        read!(self, |tx| custody::of(tx, tenant, credential))
    }

    async fn receipts_due(&self, limit: u32) -> Result<Vec<Custody>> {
        read!(self, |tx| custody::receipts_due(tx, limit))
    }

    async fn record_receipts(
        &self,
        receipts: Vec<(CredentialId, String)>,
        mutation: Mutation<()>,
    ) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| custody::record_receipts(tx, &receipts))
    }

    async fn append_events(&self, events: Vec<Event>) -> Result<()> {
        let last = events.last().map(|event| event.id);
        write!(self, |tx, now| audit::insert(tx, &events))?;
        if let Some(last) = last {
            self.engine.continuity().committed(last, &[]);
        }
        Ok(())
    }

    async fn chain_tip(&self) -> Result<ChainTip> {
        read!(self, |tx| audit::tip(tx))
    }

    async fn unchained_events(&self, limit: u32) -> Result<(Vec<UnchainedEvent>, u64)> {
        read!(self, |tx| audit::unchained(tx, limit))
    }

    async fn chain_events(&self, tip: &ChainTip, entries: Vec<(uuid::Uuid, Sha256Hash)>) -> Result<()> {
        let tip = tip.clone();
        write!(self, |tx, now| audit::chain(tx, &tip, &entries))
    }

    async fn record_head(&self, signed: &ChainTip, signed_head: String) -> Result<()> {
        let signed = signed.clone();
        write!(self, |tx, now| audit::record_head(tx, &signed, &signed_head, now))
    }

    async fn latest_head(&self) -> Result<Option<String>> {
        read!(self, |tx| audit::latest_head(tx))
    }

    async fn audit_entries(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
        read!(self, |tx| audit::entries(tx, query))
    }

    async fn acquire_lease(&self, name: &str, holder: &str, duration: Duration) -> Result<Option<Lease>> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        write!(self, |tx, now| leases::acquire(tx, &name, &holder, duration, now))
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        write!(self, |tx, now| leases::release(tx, &lease))
    }

    async fn mark(&self, name: &str) -> Result<Option<String>> {
        read!(self, |tx| leases::mark(tx, name))
    }

    async fn set_mark(&self, name: &str, value: &str) -> Result<()> {
        let (name, value) = (name.to_owned(), value.to_owned());
        write!(self, |tx, now| leases::set_mark(tx, &name, &value))
    }

    async fn close(&self) {
        self.engine.close().await;
    }

    async fn forget_requests(&self, now: Timestamp) -> Result<u64> {
        write!(self, |tx, _now| pools::fold(tx))?;
        write!(self, |tx, _now| change::forget_requests(tx, now))
    }
}

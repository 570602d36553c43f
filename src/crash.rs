//! Crash points: the places where the HSM has acted and nothing says so yet, or something was committed and nobody was told.
//! Built with the feature `crash-points`, the process dies at the one that a test names, as by SIGKILL
//! (`tests/promises/crashes.rs`). In any other build they are nothing: no code, no text, and no crate `fail`.

#[cfg(all(feature = "crash-points", not(debug_assertions)))]
compile_error!("crash points are for tests: an optimised program is never built with them");

/// Defines the points and their table in one place.
macro_rules! points {
    ($($point:ident $name:literal $meaning:literal)*) => {
        /// A place where a crash is tried.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the table says what each is")]
        pub enum Point {
            $(#[doc = $meaning] $point,)*
        }

        /// Every point with its name and what was done, and what was not, when it is reached. The tests crash at each, so
        /// one that is never reached is found.
        pub const POINTS: &[(Point, &str, &str)] = &[$((Point::$point, $name, $meaning),)*];
    };
}

points! {
    KeyPairMade "key_pair.made" "A key pair is on the token; neither certificate nor row names it."
    RootCertified "root.certified" "The root has signed its own certificate; there is no row."
    TenantMacKeyMade "tenant.mac_key_made" "A tenant's HMAC key is on the token; the tenant has no CA yet."
    TenantCertified "tenant.certified" "The root has signed a new tenant's sub-CA; there is no row."
    TenantCommitted "tenant.committed" "A tenant's row is committed; nobody was told."
    IdentityCertified "identity.certified" "A registered client's certificate is signed; it is not registered."
    CaCertified "ca.certified" "The root has signed a tenant's next CA; there is no row."
    CaCommitted "ca.committed" "A CA's row is committed: it issues, and nobody was told."
    CaRequestSigned "ca.request_signed" "A CA key has signed its request; no event says so."
    CaRequestCommitted "ca.request_committed" "The event of a CA's request is committed; nobody has the request."
    CaTried "ca.tried" "An imported CA has signed its trial certificate; there is no row."
    CeremonySigned "ceremony.signed" "The own root has signed another CA's request; no event says so."
    CeremonyCommitted "ceremony.committed" "The event of a ceremony is committed; nobody has the certificate."
    StartMovedDeadlines "start.moved_deadlines" "A broker that starts has moved deadlines by its absence; it does not serve yet."

    EpochIntended "epoch.intended" "An epoch is CREATING; there is no KEK."
    EpochKekCreated "epoch.kek_created" "The KEK is on the token; its epoch is still CREATING."
    EpochOpened "epoch.opened" "The epoch is OPEN; nothing uses it."
    EpochClosed "epoch.closed" "The epoch is CLOSED; what lives in it has not moved."
    EpochRewrapped "epoch.rewrapped" "Data keys are wrapped under another KEK; their rows name the old one."
    EpochMoved "epoch.moved" "Keys have moved to another epoch; the old one is not shredded."
    ShredIntended "shred.intended" "The epoch is SHREDDING; its KEK is on the token."
    ShredDestroyed "shred.destroyed" "The KEK is destroyed; nobody has looked for it."
    ShredVerified "shred.verified" "A fresh process found no KEK; the epoch is still SHREDDING."
    ShredCommitted "shred.committed" "The epoch is DESTROYED; no receipt is made."
    ReceiptsSigned "receipts.signed" "Receipts are signed; none is recorded."
    ReceiptsCommitted "receipts.committed" "Receipts are recorded; the sweep has not ended."

    PoolCreated "pool.created" "A pool is committed; nobody was told and nothing is produced."
    PoolUpdated "pool.updated" "A pool's new size is committed; nobody was told."
    PoolDeleted "pool.deleted" "A pool is deleted; its keys are there."
    PoolErased "pool.erased" "Waiting keys are erased; their epoch is not shredded."
    ProductionGenerated "production.generated" "The HSM has generated and wrapped keys; nothing says so."
    ProductionCertified "production.certified" "The sub-CA has signed their certificates; nothing says so."
    ProductionInserted "production.inserted" "Their rows are written in a transaction that is not committed."
    ProductionCommitted "production.committed" "They are committed; nobody was told."
    IssuerCaRecorded "issuer.ca_recorded" "The CA outside has a row; no certificate under it has one."
    IssuerRequested "issuer.requested" "Keys with their requests are made for a CA outside; nothing says so."
    IssuerAnswered "issuer.answered" "The CA outside has certified keys; their rows wait for certificates."
    IssuerRecorded "issuer.recorded" "The certificates of the CA outside are recorded; nothing else was done."

    IssuerClientCertified "issuer.client_certified" "The CA outside has certified our client key for it again; nothing says so."
    IssuerClientRecorded "issuer.client_recorded" "The event of that is committed; the file is the old one."

    RegistrationCommitted "registration.committed" "VNFCIs are registered; their tokens are not computed."
    RearmingCommitted "rearming.committed" "VNFCIs are armed anew; their tokens are not computed."
    TokenComputed "token.computed" "The HSM has computed a one-time token; MANO does not have it."
    ClaimVerified "claim.verified" "The initial credential is good; nothing is drawn."
    ClaimCommitted "claim.committed" "A claim is committed; it is not noted beside the mirror that it goes out."
    ClaimDrawn "claim.drawn" "Credentials are bound to the recipient key; nothing is sealed."
    ClaimSigned "claim.signed" "The sub-CA has signed what the claim intends; nothing says so."
    ClaimCertified "claim.certified" "The claim's certificates are recorded; nothing is sealed."
    ClaimSealed "claim.sealed" "The keys are sealed; the VNFCI does not have them."
    ClaimDestroyed "claim.destroyed" "An overdue claim is destroyed; its certificates are on no CRL."
    ConfirmVerified "confirm.verified" "Every key has signed; nothing is delivered."
    ConfirmCommitted "confirm.committed" "Keys are delivered and the broker's copies erased; the VNFCI does not know."
    RenewalRequested "renewal.requested" "MANO's wish for a renewal is committed; nobody was told."
    OverlapEnded "renewal.overlap_ended" "What a renewal replaced is to be revoked; no CRL lists it."
    ReleaseCommitted "release.committed" "Custody has ended; the VNFCI does not know."
    TerminationCommitted "termination.committed" "A VNFCI has ended; MANO does not know, and no CRL lists it."
    EnrolmentIntended "enrolment.intended" "The intent to certify a VNFCI's own key is committed; nothing is signed."
    EnrolmentSigned "enrolment.signed" "Its certificate is signed; there is no row."
    EnrolmentCommitted "enrolment.committed" "Its certificate is recorded; the VNFCI does not have it."
    VouchedIntended "vouched.intended" "The intent to certify a key of a registration authority is committed; nothing is signed."
    VouchedSigned "vouched.signed" "Its certificate is signed; there is no row."
    VouchedCommitted "vouched.committed" "Its certificate is recorded; the authority does not have it."

    RevocationCommitted "revocation.committed" "Certificates are to be revoked; nobody was told, and no CRL lists them."
    CrlSigned "crl.signed" "CRLs are signed; none is recorded."
    CrlCommitted "crl.committed" "CRLs are recorded; the round has not ended."
    OcspCertified "ocsp.certified" "A CA has certified its responder; there is no row."
    OcspCommitted "ocsp.committed" "The responder is recorded; it has answered nobody."
    EventsChained "audit.chained" "Events have their places in the chain; no signed head covers them."
    HeadSigned "audit.head_signed" "The chain's head is signed; it is not recorded."
    HeadCommitted "audit.head_committed" "The signed head is recorded; nobody was told."
    MirrorAppended "audit.mirror_appended" "The mirror has the rows of a head; the head itself is not there."
    MirrorFinished "audit.mirror_finished" "The mirror has the head; the database may not know that there is a mirror."

    RecoveryNoted "recovery.noted" "It is noted that a recovery is under way; nothing is done."
    RecoveryBroughtBack "recovery.brought_back" "The custody of what went out is ended; VNFCIs that MANO ended are not."
    RecoveryEnded "recovery.ended" "They are ended; open claims are not destroyed."
    RecoveryErased "recovery.erased" "Everything that waits is erased; every KEK is there."
    RecoveryStrayDestroyed "recovery.stray_destroyed" "A KEK that only the token knew is destroyed; no event says so."
    RecoveryStrayRecorded "recovery.stray_recorded" "The event says so; the recovery's notes do not."
    RecoveryShredded "recovery.shredded" "Every KEK is destroyed; the log is the old one."
    RecoveryArchived "recovery.archived" "The old mirror is put aside; the log is the old one."
    RecoveryRestarted "recovery.restarted" "The new log is begun; nothing is chained, signed or mirrored."

    WorkerGenerated "worker.generated" "A worker has generated a key pair; it is not wrapped."
    WorkerProduced "worker.produced" "A worker has wrapped keys; the broker has no answer."
    WorkerSealed "worker.sealed" "A worker has sealed keys; the broker has no answer."
    WorkerSigned "worker.signed" "A worker has signed; the broker has no answer."
    WorkerMac "worker.mac" "A worker has computed an HMAC; the broker has no answer."
    WorkerKeyPair "worker.key_pair" "A worker has made a key pair on the token; the broker has no answer."
    WorkerMacKey "worker.mac_key" "A worker has made an HMAC key on the token; the broker has no answer."
    WorkerKek "worker.kek" "A worker has made a KEK on the token; the broker has no answer."
    WorkerKekDestroyed "worker.kek_destroyed" "A worker has destroyed a KEK; the broker has no answer."
    WorkerRewrapping "worker.rewrapping" "A worker has unwrapped a data key; it is not wrapped under the other KEK."
    WorkerRewrapped "worker.rewrapped" "A worker has wrapped data keys under another KEK; the broker has no answer."
    WorkerVerified "worker.verified" "A fresh process found a KEK gone; the broker has no answer."
}

#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) fn reached(_point: Point) {}

/// What a worker process needs in its environment to die where a test says; in any other build nothing.
#[cfg(not(feature = "crash-points"))]
pub(crate) fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    None
}

#[cfg(feature = "crash-points")]
pub(crate) use armed::{environment, reached};

#[cfg(feature = "crash-points")]
mod armed {
    use super::{POINTS, Point};
    use rustix::process::{Signal, getpid, kill_process};
    use std::path::Path;
    use std::sync::Once;

    /// Names the file that says where to die: the name of a point and nothing else. It may be written at any time.
    const FILE: &str = "KEYBROKER_CRASH_FILE";

    /// Dies here if a test says so.
    pub(crate) fn reached(point: Point) {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(register);
        for (_, name, _) in POINTS.iter().filter(|(known, _, _)| *known == point) {
            fail::fail_point!(name);
        }
    }

    pub(crate) fn environment() -> Option<(&'static str, std::ffi::OsString)> {
        Some((FILE, std::env::var_os(FILE)?))
    }

    /// One action for all points: to look whether it is this one's turn.
    fn register() {
        let Some(file) = std::env::var_os(FILE) else { return };
        for (_, name, _) in POINTS {
            let file = file.clone();
            let registered = fail::cfg_callback(*name, move || strike(Path::new(&file), name));
            if let Err(problem) = registered {
                panic!("{name}: {problem}");
            }
        }
    }

    fn strike(file: &Path, name: &str) {
        if !std::fs::read_to_string(file).is_ok_and(|named| named.trim() == name) {
            return;
        }
        // Once only: the next process lives. Nothing runs any more that could report a failure.
        let _ = std::fs::rename(file, file.with_extension("struck"));
        let _ = kill_process(getpid(), Signal::KILL);
        // The signal is on its way; this thread does nothing in the meantime.
        loop {
            std::thread::park();
        }
    }
}

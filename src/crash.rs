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
    IdentityCertified "identity.certified" "`init` had a client certificate signed; it is not registered."
    CaCertified "ca.certified" "The root has signed a tenant's next CA; there is no row."
    CaCommitted "ca.committed" "A CA's row is committed: it issues, and nobody was told."
    CaRequestSigned "ca.request_signed" "A CA key has signed its request; no event says so."
    CaRequestCommitted "ca.request_committed" "The event of a CA's request is committed; nobody has the request."
    CaTried "ca.tried" "An imported CA has signed its trial certificate; there is no row."

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
    IssuerRequested "issuer.requested" "Keys with their requests are made for a CA outside; nothing says so."
    IssuerAnswered "issuer.answered" "The CA outside has certified keys; their rows wait for certificates."
    IssuerRecorded "issuer.recorded" "The certificates of the CA outside are recorded; nothing else was done."

    RegistrationCommitted "registration.committed" "VNFCIs are registered; their tokens are not computed."
    RearmingCommitted "rearming.committed" "VNFCIs are armed anew; their tokens are not computed."
    TokenComputed "token.computed" "The HSM has computed a one-time token; MANO does not have it."
    ClaimVerified "claim.verified" "The initial credential is good; nothing is drawn."
    ClaimDrawn "claim.drawn" "Credentials are bound to the recipient key; nothing is sealed."
    ClaimSigned "claim.signed" "The sub-CA has signed what the claim intends; nothing says so."
    ClaimCertified "claim.certified" "The claim's certificates are recorded; nothing is sealed."
    ClaimSealed "claim.sealed" "The keys are sealed; the VNFCI does not have them."
    ClaimDestroyed "claim.destroyed" "An overdue claim is destroyed; its certificates are on no CRL."
    ConfirmVerified "confirm.verified" "Every key has signed; nothing is delivered."
    ConfirmCommitted "confirm.committed" "Keys are delivered and the broker's copies erased; the VNFCI does not know."
    ReleaseCommitted "release.committed" "Custody has ended; the VNFCI does not know."
    TerminationCommitted "termination.committed" "A VNFCI has ended; MANO does not know, and no CRL lists it."
    EnrolmentIntended "enrolment.intended" "The intent to certify a VNFCI's own key is committed; nothing is signed."
    EnrolmentSigned "enrolment.signed" "Its certificate is signed; there is no row."
    EnrolmentCommitted "enrolment.committed" "Its certificate is recorded; the VNFCI does not have it."

    RevocationCommitted "revocation.committed" "Certificates are to be revoked; nobody was told, and no CRL lists them."
    CrlSigned "crl.signed" "CRLs are signed; none is recorded."
    CrlCommitted "crl.committed" "CRLs are recorded; the round has not ended."
    OcspCertified "ocsp.certified" "A CA has certified its responder; there is no row."
    OcspCommitted "ocsp.committed" "The responder is recorded; it has answered nobody."
    EventsChained "audit.chained" "Events have their places in the chain; no signed head covers them."
    HeadSigned "audit.head_signed" "The chain's head is signed; it is not recorded."
    HeadCommitted "audit.head_committed" "The signed head is recorded; nobody was told."
    MirrorAppended "audit.mirror_appended" "The mirror has the rows of a head; the head itself is not there."
}

#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) fn reached(_point: Point) {}

#[cfg(feature = "crash-points")]
pub(crate) use armed::reached;

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

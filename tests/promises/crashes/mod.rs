//! Goal: a broker that dies at any point between what the HSM does and the commit that says so, or between a commit and
//! the answer, goes on as if nothing had happened: every request gets through and has the same outcome again, no key is
//! held twice or left behind, no KEK is unknown, and the log verifies.
//! Method: the broker is built with the feature `crash-points` (`src/crash.rs` has the table of them). For each point it is
//! told to die there, something is asked of it that leads there, and it is started again
//! (`support::crashing::Site::crash_at`). A point that is not reached fails its test.

mod authorities;
mod claims;
mod custody;
mod production;
mod recovery;

use crate::support::crashing::{crashing_keybroker, name_of};
use crate::support::process::keybroker;
use crate::support::site::Site;
use keybroker::crash::{POINTS, Point};
use std::path::Path;

/// By which test a point is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Init,
    Authorities,
    Ceremonies,
    Tenants,
    Start,
    Epochs,
    Pools,
    ExternalIssuer,
    IssuerClient,
    Log,
    Shredding,
    Claims,
    ClaimsAtClaim,
    Confirmations,
    Endings,
    Renewals,
    Revocation,
    Enrolment,
    Vouched,
    Recovery,
}

/// Every point has its place.
const fn scenario(point: Point) -> Scenario {
    match point {
        Point::RootCertified | Point::IdentityCertified => Scenario::Init,
        Point::KeyPairMade
        | Point::CaCertified
        | Point::CaCommitted
        | Point::CaRequestSigned
        | Point::CaRequestCommitted
        | Point::CaTried
        | Point::OcspCertified
        | Point::OcspCommitted
        | Point::WorkerKeyPair => Scenario::Authorities,
        Point::CeremonySigned | Point::CeremonyCommitted => Scenario::Ceremonies,
        Point::StartMovedDeadlines => Scenario::Start,
        Point::TenantMacKeyMade | Point::TenantCertified | Point::TenantCommitted | Point::WorkerMacKey => {
            Scenario::Tenants
        }
        Point::EpochIntended | Point::EpochKekCreated | Point::EpochOpened | Point::WorkerKek => {
            Scenario::Epochs
        }
        Point::PoolCreated
        | Point::PoolUpdated
        | Point::PoolDeleted
        | Point::PoolErased
        | Point::ProductionGenerated
        | Point::ProductionCertified
        | Point::ProductionInserted
        | Point::ProductionCommitted
        | Point::WorkerGenerated
        | Point::WorkerProduced => Scenario::Pools,
        Point::IssuerCaRecorded | Point::IssuerRequested | Point::IssuerAnswered | Point::IssuerRecorded => {
            Scenario::ExternalIssuer
        }
        Point::IssuerClientCertified | Point::IssuerClientRecorded => Scenario::IssuerClient,
        Point::EventsChained
        | Point::HeadSigned
        | Point::HeadCommitted
        | Point::MirrorAppended
        | Point::MirrorFinished => Scenario::Log,
        Point::EpochClosed
        | Point::EpochRewrapped
        | Point::EpochMoved
        | Point::ShredIntended
        | Point::ShredDestroyed
        | Point::ShredVerified
        | Point::ShredCommitted
        | Point::ReceiptsSigned
        | Point::ReceiptsCommitted
        | Point::WorkerKekDestroyed
        | Point::WorkerRewrapping
        | Point::WorkerRewrapped
        | Point::WorkerVerified => Scenario::Shredding,
        Point::RegistrationCommitted
        | Point::RearmingCommitted
        | Point::TokenComputed
        | Point::ClaimVerified
        | Point::ClaimCommitted
        | Point::ClaimDrawn
        | Point::ClaimSealed
        | Point::WorkerMac
        | Point::WorkerSealed => Scenario::Claims,
        Point::ClaimSigned | Point::ClaimCertified | Point::WorkerSigned => Scenario::ClaimsAtClaim,
        Point::ConfirmVerified | Point::ConfirmCommitted => Scenario::Confirmations,
        Point::RenewalRequested | Point::OverlapEnded => Scenario::Renewals,
        Point::ClaimDestroyed | Point::ReleaseCommitted | Point::TerminationCommitted => Scenario::Endings,
        Point::EnrolmentIntended | Point::EnrolmentSigned | Point::EnrolmentCommitted => Scenario::Enrolment,
        Point::VouchedIntended | Point::VouchedSigned | Point::VouchedCommitted => Scenario::Vouched,
        Point::RevocationCommitted | Point::CrlSigned | Point::CrlCommitted => Scenario::Revocation,
        Point::RecoveryNoted
        | Point::RecoveryBroughtBack
        | Point::RecoveryEnded
        | Point::RecoveryErased
        | Point::RecoveryStrayDestroyed
        | Point::RecoveryStrayRecorded
        | Point::RecoveryShredded
        | Point::RecoveryArchived
        | Point::RecoveryRestarted => Scenario::Recovery,
    }
}

/// The points of a test.
fn points(of: Scenario) -> Vec<Point> {
    let points: Vec<Point> =
        POINTS.iter().map(|(point, _, _)| *point).filter(|point| scenario(*point) == of).collect();
    assert!(!points.is_empty());
    points
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_delivered_has_no_crash_points() {
    let (delivered, crashing) = (keybroker(), crashing_keybroker());
    let names = POINTS.iter().map(|(_, name, _)| *name);
    for text in names.chain(["KEYBROKER_CRASH_FILE", "failpoint"]) {
        assert!(Site::program_contains(crashing, text).await, "{text} cannot be looked for");
        assert!(!Site::program_contains(delivered, text).await, "{text}");
    }
    // Nothing that builds a program to be delivered asks for them, and an optimised build with them fails.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for place in ["Makefile", "deploy", "scripts", ".ci"] {
        let place = root.join(place).display().to_string();
        let found = crate::support::process::run("grep", ["--recursive", "crash-points", &place]).await;
        assert_eq!(found.out, "");
    }
    let manifest: toml::Table =
        toml::from_str(&std::fs::read_to_string(root.join("Cargo.toml")).unwrap()).unwrap();
    for (feature, enables) in manifest["features"].as_table().unwrap() {
        let enables = enables.as_array().unwrap();
        let enables = enables.iter().any(|other| other.as_str().unwrap().contains("crash-points"));
        assert!(feature != "default" && !enables, "{feature}");
    }
}

#[test]
fn every_crash_point_has_a_name_of_its_own() {
    let mut names: Vec<&str> = POINTS.iter().map(|(point, _, _)| name_of(*point)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), POINTS.len());
}

//! What becomes of an anchor's CRLs when some are given (RFC 5280 6.3.3): pure.
//!
//! A CRL displaces another one only by a signature that verifies. Which certificates verify CRLs is known of the anchor, and of
//! the CAs below it whose certificates the operator gave; a CRL of any other CA waits beside those of the same name, and path
//! validation takes the newest that verifies by the CA in the path. Nothing that waits displaces anything.

use crate::broker::BrokerError;
use crate::broker::admin::invalid;
use crate::ca::path::{CRL_CLOCK_SKEW, Certificate, Crl, PathError};
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use std::sync::Arc;

/// CRLs of one issuer and scope that wait for their CA's certificate: more are refused, and none is dropped for another.
const WAITING_MAX: usize = 8;
/// CRLs of one anchor.
const HELD_MAX: usize = 1_000;

/// What is to be changed.
#[derive(Debug)]
pub(super) struct Changes {
    /// To be added, DER.
    pub(super) added: Vec<Vec<u8>>,
    /// To be removed, SHA-256.
    pub(super) removed: Vec<Sha256Hash>,
}

/// What the known certificates say of a CRL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Verifies by this certificate.
    Verified(Sha256Hash),
    /// None of the certificates could have signed it.
    Waiting,
    /// The only ones that could have signed it did not, and it says that it is theirs.
    Forged,
}

struct Judged {
    crl: Arc<Crl>,
    standing: Standing,
    /// DER, if it is new.
    given: Option<Vec<u8>>,
}

/// Holds `given` (DER) against what the anchor has. `issuers`: the anchor, and certificates below it with a path to it.
///
/// # Errors
/// [`BrokerError::Invalid`] for what is no CRL, is of the future, or is not signed by the CA that it names;
/// [`BrokerError::Precondition`] for one that is older than one that verifies like it, and if too many wait.
pub(super) fn settle(
    held: &[Arc<Crl>],
    issuers: &[&Certificate],
    given: Vec<Vec<u8>>,
    now: Timestamp,
) -> Result<Changes, BrokerError> {
    let mut all = Vec::with_capacity(held.len() + given.len());
    for crl in held {
        // One that does not say by which key it is signed may be of an earlier one.
        let unverified = if crl.names_key() { Standing::Forged } else { Standing::Waiting };
        let standing = standing(crl, issuers).unwrap_or(unverified);
        all.push(Judged { crl: Arc::clone(crl), standing, given: None });
    }
    for (index, der) in given.into_iter().enumerate() {
        let field = format!("crls_der[{index}]");
        let refused = |error: PathError| invalid(&field, error.to_string());
        let crl = Crl::from_der(&der).map_err(refused)?;
        if crl.is_early(now) {
            let problem = format!(
                "the CRL of {} is of the future: its thisUpdate is {}, and it is {now} (clocks may differ by {} minutes)",
                crl.issuer(),
                crl.this_update(),
                CRL_CLOCK_SKEW.as_secs() / 60
            );
            return Err(invalid(&field, problem));
        }
        let standing = standing(&crl, issuers).map_err(refused)?;
        if all.iter().any(|known| known.crl.fingerprint() == crl.fingerprint()) {
            continue;
        }
        if let Some(newer) = all.iter().find(|known| known.standing == standing && known.outdates(&crl)) {
            return Err(BrokerError::Precondition(format!(
                "{field} of {} is older than the one that the anchor has, of {}",
                crl.issuer(),
                newer.crl.this_update()
            )));
        }
        all.push(Judged { crl: Arc::new(crl), standing, given: Some(der) });
    }
    let stays = |position: usize, judged: &Judged| match judged.standing {
        Standing::Forged => false,
        Standing::Waiting => true,
        // Of two that say the same number, the later one counts.
        Standing::Verified(_) => !all.iter().enumerate().any(|(other, known)| {
            known.standing == judged.standing
                && known.crl.replaces(&judged.crl)
                && (judged.crl.is_older_than(&known.crl)
                    || other > position && !known.crl.is_older_than(&judged.crl))
        }),
    };
    let mut changes = Changes { added: Vec::new(), removed: Vec::new() };
    let mut left: Vec<&Judged> = Vec::new();
    for (position, judged) in all.iter().enumerate() {
        match (stays(position, judged), &judged.given) {
            (true, given) => {
                left.push(judged);
                changes.added.extend(given.clone());
            }
            (false, None) => changes.removed.push(judged.crl.fingerprint()),
            (false, Some(_)) => {}
        }
    }
    for judged in left.iter().filter(|judged| judged.given.is_some() && judged.standing == Standing::Waiting)
    {
        let waiting = left
            .iter()
            .filter(|other| other.standing == Standing::Waiting && other.crl.replaces(&judged.crl));
        if waiting.count() > WAITING_MAX {
            return Err(BrokerError::Precondition(format!(
                "{WAITING_MAX} CRLs in the name of {} wait already for the certificate of their CA, by which they could be \
                 verified: give it, with `keybroker anchor update --ca FILE`",
                judged.crl.issuer()
            )));
        }
    }
    if left.len() > HELD_MAX {
        return Err(BrokerError::Precondition(format!("an anchor has {HELD_MAX} CRLs at most")));
    }
    Ok(changes)
}

impl Judged {
    /// Whether it verifies and is newer than `crl`, which verifies by the same certificate.
    fn outdates(&self, crl: &Crl) -> bool {
        matches!(self.standing, Standing::Verified(_))
            && self.crl.replaces(crl)
            && crl.is_older_than(&self.crl)
    }
}

/// # Errors
/// [`PathError::Signature`]: it names a key that is known, and that key did not sign it.
fn standing(crl: &Crl, issuers: &[&Certificate]) -> Result<Standing, PathError> {
    let mut wrong = None;
    for issuer in issuers.iter().filter(|issuer| crl.may_be_signed_by(issuer)) {
        match crl.verify(issuer) {
            Ok(()) => return Ok(Standing::Verified(issuer.fingerprint())),
            Err(error) => wrong = Some(error),
        }
    }
    wrong.map_or(Ok(Standing::Waiting), Err)
}

//! What one judgement may cost, whatever certificates a peer sends.

use super::PathError;
use super::certificate::{Certificate, SignedBytes};
use super::signature::SignatureError;
use crate::nfv::Sha256Hash;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Signatures verified. Paths have 1 to 3 certificates, each with a CRL.
const SIGNATURES: usize = 100;
/// Names held against name constraints.
const NAME_COMPARISONS: usize = 250_000;
/// Steps of the search for a path.
const STEPS: usize = 1_000;

/// A budget, and the signatures that were verified with it.
#[derive(Debug)]
pub struct Work {
    signatures: Cell<usize>,
    names: Cell<usize>,
    steps: Cell<usize>,
    /// By what is signed and the signer's certificate.
    verified: RefCell<HashMap<(Sha256Hash, Sha256Hash), Result<(), SignatureError>>>,
}

impl Default for Work {
    /// The whole budget.
    fn default() -> Self {
        Self {
            signatures: Cell::new(SIGNATURES),
            names: Cell::new(NAME_COMPARISONS),
            steps: Cell::new(STEPS),
            verified: RefCell::default(),
        }
    }
}

impl Work {
    /// Verifies the signature on a certificate or CRL (`id`: its SHA-256), once.
    pub(super) fn verify(
        &self,
        id: Sha256Hash,
        signed: &SignedBytes,
        signer: &Certificate,
    ) -> Result<(), PathError> {
        let key = (id, signer.fingerprint);
        let known = self.verified.borrow().get(&key).cloned();
        let outcome = match known {
            Some(outcome) => outcome,
            None => {
                spend(&self.signatures, 1, "signatures")?;
                let outcome = signed.verify(&signer.key);
                self.verified.borrow_mut().insert(key, outcome.clone());
                outcome
            }
        };
        outcome.map_err(|error| match error {
            SignatureError::Algorithm(what) => PathError::Signature(format!("{what} is not accepted")),
            SignatureError::Wrong => PathError::Signature(format!("not by the key of {}", signer.shown())),
        })
    }

    pub(super) fn compare_names(&self, count: usize) -> Result<(), PathError> {
        spend(&self.names, count, "name constraints")
    }

    pub(super) fn step(&self) -> Result<(), PathError> {
        spend(&self.steps, 1, "paths")
    }
}

fn spend(budget: &Cell<usize>, count: usize, what: &'static str) -> Result<(), PathError> {
    let left = budget.get().checked_sub(count).ok_or(PathError::TooMuchWork(what))?;
    budget.set(left);
    Ok(())
}

//! Finds paths: depth first from the certificate in question, by issuer name and key identifiers, every edge verified.

use super::certificate::Certificate;
use super::crl::Crl;
use super::work::Work;
use super::{MAX_CHAIN, PathError, Rules, ValidPath, process};
use crate::nfv::Sha256Hash;
use std::sync::Arc;

/// A search for a valid path to one anchor.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) pool: &'a [Certificate],
    pub(super) anchor: &'a Certificate,
    pub(super) crls: &'a [Arc<Crl>],
    pub(super) rules: &'a Rules,
    pub(super) work: &'a Work,
    /// CRL issuers whose own paths are being searched for: none is searched for inside of itself.
    pub(super) crl_issuers: &'a [Sha256Hash],
}

impl<'a> Search<'a> {
    pub(super) fn find(&self, leaf: &'a Certificate) -> Result<ValidPath, PathError> {
        if leaf.fingerprint == self.anchor.fingerprint {
            let what = format!("{} is a trust anchor itself", leaf.shown());
            return Err(PathError::UnknownIssuer(what));
        }
        let mut nearest = PathError::UnknownIssuer(format!("of {}", leaf.shown()));
        // Costs no step: there may be thousands of anchors, and nearly all have nothing to do with the leaf.
        if !self.pool.iter().chain([leaf]).any(|child| child.may_be_issued_by(self.anchor)) {
            return Err(nearest);
        }
        let found = self.extend(&mut vec![leaf], &mut nearest)?;
        found.ok_or(nearest)
    }

    /// Extends `path` (leaf first) to the anchor. None: no extension is valid, `nearest` says why.
    ///
    /// # Errors
    /// The work is spent.
    fn extend(
        &self,
        path: &mut Vec<&'a Certificate>,
        nearest: &mut PathError,
    ) -> Result<Option<ValidPath>, PathError> {
        self.work.step()?;
        let Some(&child) = path.last() else { return Ok(None) };
        if child.may_be_issued_by(self.anchor) {
            let judged = self
                .work
                .verify(child.fingerprint, &child.signed, self.anchor)
                .and_then(|()| process::judge(self, path));
            match judged {
                Ok(valid) => return Ok(Some(valid)),
                Err(error) => note(nearest, error)?,
            }
        }
        if path.len() >= MAX_CHAIN {
            note(nearest, PathError::UnknownIssuer(format!("within {MAX_CHAIN} certificates")))?;
            return Ok(None);
        }
        for issuer in self.pool.iter().filter(|issuer| child.may_be_issued_by(issuer)) {
            let same = |known: &Certificate| known.subject == issuer.subject && known.key == issuer.key;
            if same(self.anchor) || path.iter().any(|known| same(known)) {
                continue;
            }
            match self.work.verify(child.fingerprint, &child.signed, issuer) {
                Ok(()) => {
                    path.push(issuer);
                    let found = self.extend(path, nearest)?;
                    path.pop();
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Err(error) => note(nearest, error)?,
            }
        }
        Ok(None)
    }
}

/// Keeps the failure that is nearest to success.
///
/// # Errors
/// `error` itself, if it ends the search.
fn note(nearest: &mut PathError, error: PathError) -> Result<(), PathError> {
    if matches!(error, PathError::TooMuchWork(_)) {
        return Err(error);
    }
    if error.nearness() > nearest.nearness() {
        *nearest = error;
    }
    Ok(())
}

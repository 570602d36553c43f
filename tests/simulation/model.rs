//! What the broker is held against: who holds what, what has ended, what was answered.

use keybroker::clock::Timestamp;
use keybroker::nfv::{ClaimId, CredentialId, RequestId, Sha256Hash, SlotName};
use keybroker::sealing::RecipientKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A credential as its VNFCI unsealed it.
#[derive(Clone)]
pub(crate) struct Unsealed {
    pub(crate) slot: SlotName,
    pub(crate) credential: CredentialId,
    pub(crate) certificate: Sha256Hash,
    pub(crate) certificate_der: Vec<u8>,
    pub(crate) not_after: Timestamp,
    /// PKCS#8, DER.
    pub(crate) private_key: Zeroizing<Vec<u8>>,
}

/// A claim that was answered.
#[derive(Clone)]
pub(crate) struct Answered {
    pub(crate) claim: ClaimId,
    pub(crate) recipient_key: Sha256Hash,
    pub(crate) keys: Vec<Unsealed>,
    pub(crate) confirm_by: Timestamp,
    /// Its arming.
    pub(crate) token: Arc<str>,
}

impl Answered {
    pub(crate) fn credentials(&self) -> BTreeSet<CredentialId> {
        self.keys.iter().map(|key| key.credential).collect()
    }
}

/// What is known of a VNFCI.
#[derive(Clone)]
pub(crate) struct Vnfci {
    pub(crate) id: String,
    /// The token of its latest arming.
    pub(crate) token: Arc<str>,
    /// Tokens that no claim may be made with any more.
    pub(crate) void: Vec<Arc<str>>,
    pub(crate) recipient: Arc<RecipientKey>,
    /// The claim that is open by the latest answer.
    pub(crate) open: Option<Answered>,
    /// Every claim that was ever answered.
    pub(crate) answered: Vec<Answered>,
    /// What is in force, confirmed.
    pub(crate) confirmed: Option<Answered>,
    /// Every claim that ever was.
    pub(crate) were_confirmed: BTreeSet<ClaimId>,
    /// What renewals replaced, which stays valid for the overlap.
    pub(crate) superseded: Vec<Answered>,
    /// The renewal that is open by the latest answer.
    pub(crate) renewing: Option<Answered>,
    /// Recipient keys that renewals of what is in force gave up.
    pub(crate) renewals_given_up: usize,
    /// An answer was lost since: the broker may know more than this.
    pub(crate) uncertain: bool,
    pub(crate) spent: bool,
    pub(crate) ended: bool,
    /// A recovery has voided the token.
    pub(crate) voided: bool,
    pub(crate) redraws: u32,
    /// Until when a claim may be made with the token.
    pub(crate) expires_at: Timestamp,
}

/// Of initial credentials where MANO does not say.
const VALIDITY: Duration = Duration::from_secs(24 * 3_600);

impl Vnfci {
    pub(crate) fn new(id: String, token: String, now: Timestamp) -> Self {
        Self {
            id,
            token: token.into(),
            void: Vec::new(),
            recipient: Arc::new(RecipientKey::generate().unwrap()),
            open: None,
            answered: Vec::new(),
            confirmed: None,
            were_confirmed: BTreeSet::new(),
            superseded: Vec::new(),
            renewing: None,
            renewals_given_up: 0,
            uncertain: false,
            spent: false,
            ended: false,
            voided: false,
            redraws: 0,
            expires_at: now.plus(VALIDITY),
        }
    }

    /// Everything that it may hold.
    pub(crate) fn take_all(&mut self) -> Vec<Answered> {
        let latest = [self.open.take(), self.confirmed.take(), self.renewing.take()];
        latest.into_iter().flatten().chain(std::mem::take(&mut self.superseded)).collect()
    }

    /// A new initial credential counts from now on.
    pub(crate) fn arm(&mut self, token: String, now: Timestamp) {
        self.void.push(std::mem::replace(&mut self.token, token.into()));
        self.spent = false;
        self.ended = false;
        self.voided = false;
        self.redraws = 0;
        self.uncertain = false;
        self.expires_at = now.plus(VALIDITY);
    }
}

/// Everything.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) vnfcis: Vec<Vnfci>,
    /// Credential -> who unsealed it: VNFCI and recipient key. Never two.
    pub(crate) holders: HashMap<CredentialId, (String, Sha256Hash)>,
    /// Credentials that were withdrawn or destroyed by what was answered: never to be had again.
    pub(crate) ended: BTreeSet<CredentialId>,
    /// Credentials whose certificates were withdrawn, or may have been: the answer was lost.
    pub(crate) revoked: BTreeSet<CredentialId>,
    pub(crate) maybe_revoked: BTreeSet<CredentialId>,
    /// VNFCIs of those whose answer was lost (asked again, it withdraws what they hold by then), and those of which an answer
    /// was lost when theirs were withdrawn.
    pub(crate) revoked_again: BTreeSet<String>,
    /// Credentials that went out and that the database, rolled back, does not know any more: never to be had again either.
    pub(crate) lost: BTreeSet<CredentialId>,
    /// The VNFCIs as they were when the store was backed up.
    pub(crate) backup: Option<Vec<Vnfci>>,
    /// Requests that were answered, to be repeated.
    pub(crate) requests: Vec<(RequestId, Timestamp, Asked, String)>,
    pub(crate) counts: BTreeMap<&'static str, u32>,
}

/// A mutation that can be asked again.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    CreatePool(String, String, u32),
    ResizePool(String, u32),
    Register(Vec<String>, Vec<String>),
    Rearm(String),
    Terminate(String),
    ScaleIn(Vec<String>),
    Revoke(Vec<String>),
    RequestRenewal(Vec<String>),
}

impl Model {
    /// Notes an answer; panics if somebody else had one of its keys, or if one had ended.
    pub(crate) fn unsealed(&mut self, index: usize, answered: &Answered) {
        let vnfci = &mut self.vnfcis[index];
        for key in &answered.keys {
            let holder = (vnfci.id.clone(), answered.recipient_key);
            let before = self.holders.insert(key.credential, holder.clone());
            assert!(before.as_ref().is_none_or(|other| *other == holder), "{before:?} and {holder:?}");
            assert!(
                !self.ended.contains(&key.credential) && !self.lost.contains(&key.credential),
                "{} had ended and was delivered again",
                key.credential
            );
        }
    }

    /// Notes the answer to a claim, which is open from now on.
    pub(crate) fn drawn(&mut self, index: usize, answered: &Answered) {
        self.unsealed(index, answered);
        let vnfci = &mut self.vnfcis[index];
        if !vnfci.answered.iter().any(|known| known.claim == answered.claim) {
            vnfci.answered.push(answered.clone());
        }
        vnfci.open = Some(answered.clone());
    }

    /// Notes that credentials have ended.
    pub(crate) fn end(&mut self, answered: impl IntoIterator<Item = Answered>) {
        self.ended.extend(answered.into_iter().flat_map(|answered| answered.credentials()));
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

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
    /// An answer was lost since: the broker may know more than this.
    pub(crate) uncertain: bool,
    pub(crate) spent: bool,
    pub(crate) ended: bool,
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
            uncertain: false,
            spent: false,
            ended: false,
            redraws: 0,
            expires_at: now.plus(VALIDITY),
        }
    }

    /// A new initial credential counts from now on.
    pub(crate) fn arm(&mut self, token: String, now: Timestamp) {
        self.void.push(std::mem::replace(&mut self.token, token.into()));
        self.spent = false;
        self.ended = false;
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
    Revoke(String),
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
                !self.ended.contains(&key.credential),
                "{} had ended and was delivered again",
                key.credential
            );
        }
        if !vnfci.answered.iter().any(|known| known.claim == answered.claim) {
            vnfci.answered.push(answered.clone());
        }
        vnfci.open = Some(answered.clone());
    }

    /// Notes that credentials have ended.
    pub(crate) fn end(&mut self, answered: Option<Answered>) {
        self.ended.extend(answered.iter().flat_map(Answered::credentials));
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

//! The token inside a worker: module, sessions, and the cache of object handles.

use super::fault::{Fault, Remedy};
use super::protocol::Pin;
use super::quirks::Capabilities;
use super::seal::SealingKey;
use super::{HsmError, ObjectId};
use crate::nfv::TenantId;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Which object of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Half {
    Public,
    Private,
    Secret,
}

impl Half {
    fn class(self) -> ObjectClass {
        match self {
            Self::Public => ObjectClass::PUBLIC_KEY,
            Self::Private => ObjectClass::PRIVATE_KEY,
            Self::Secret => ObjectClass::SECRET_KEY,
        }
    }
}

/// One logged-in token. All of a worker's PKCS#11 calls are made through it, by one thread.
pub(super) struct Token {
    /// The tenant whose own token it is.
    pub(super) owner: Option<TenantId>,
    /// The token's serial number.
    pub(super) serial: String,
    /// Manufacturer and version of module and token, for people.
    pub(super) description: String,
    /// As the self-test found them; empty until then.
    pub(super) capabilities: Capabilities,
    /// Session objects made by this process. SoftHSM leaks a little for each.
    pub(super) objects_made: u64,
    /// Our side of the key agreement, replaced every minute; a session object of `permanent`.
    pub(super) sealing_key: Option<SealingKey>,
    /// Handles are valid for this process only, so the cache cannot outlive a worker's generation.
    handles: HashMap<(ObjectId, Half), ObjectHandle>,
    /// An object was looked for by name, and not found.
    missed: bool,
    opened: Instant,
    /// Thrown away after an aborted operation, and its session objects with it.
    working: Option<Session>,
    /// Open for the life of the process: closing the last session would log out.
    permanent: Session,
    pkcs11: Pkcs11,
    slot: Slot,
}

/// What is not found by a process that was started so long ago at most is not there.
const BELIEVED: Duration = Duration::from_secs(5);
/// What a start without any token says.
pub(super) const NO_TOKEN: &str = "no token is present";

impl Token {
    /// Loads the module, finds the token by its label and logs in (one attempt).
    ///
    /// # Errors
    /// [`HsmError::Configuration`], [`HsmError::WrongPin`], else [`HsmError::Unavailable`].
    pub(super) fn open(module: &Path, label: &str, pin: &Pin) -> Result<Self, HsmError> {
        let pkcs11 = load(module)?;
        let (slot, info) = find_slot(&pkcs11, label)?;
        let open = || pkcs11.open_rw_session(slot).map_err(|error| unavailable("open a session", error));
        let permanent = open()?;
        let log_in = || permanent.login(UserType::User, Some(&AuthPin::from(pin.0.clone())));
        // A token that has no PIN refuses every one without counting it.
        match while_written(log_in, |error| matches!(error, Error::Pkcs11(RvError::UserPinNotInitialized, _)))
        {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => {
                return Err(match HsmError::from(Fault::from(error)) {
                    HsmError::WrongPin => HsmError::WrongPin,
                    other => HsmError::Unavailable(format!("log-in: {other}")),
                });
            }
        }
        let library =
            pkcs11.get_library_info().map_err(|error| unavailable("ask the module's version", error))?;
        Ok(Self {
            owner: None,
            serial: info.serial_number().trim().to_owned(),
            description: format!(
                "{} {}, token {} {}",
                library.manufacturer_id().trim(),
                library.library_version(),
                info.model().trim(),
                info.firmware_version(),
            ),
            capabilities: Capabilities::default(),
            objects_made: 0,
            sealing_key: None,
            handles: HashMap::new(),
            missed: false,
            opened: Instant::now(),
            working: None,
            permanent,
            pkcs11,
            slot,
        })
    }

    /// The working session, opened if need be.
    pub(super) fn session(&mut self) -> Result<&Session, Fault> {
        if self.working.is_none() {
            self.working = Some(self.pkcs11.open_rw_session(self.slot)?);
        }
        // Unwrap safety: it was filled in just above.
        #[allow(clippy::unwrap_used)]
        Ok(self.working.as_ref().unwrap())
    }

    /// The session that lives as long as the process.
    pub(super) fn permanent(&self) -> &Session {
        &self.permanent
    }

    /// Runs `work` with a token object's handle. If it is stale (destroyed or made anew by another process),
    /// the object is found again, once.
    ///
    /// # Errors
    /// [`HsmError::NotFound`] if there is none; else what `work` gives.
    pub(super) fn with_object<T>(
        &mut self,
        id: &ObjectId,
        half: Half,
        work: impl Fn(&Session, ObjectHandle) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let handle = self.handle(id, half)?;
        match work(self.session()?, handle) {
            Err(fault) if fault.remedy() == Remedy::FindAgain => {
                self.forget(id);
                // The working session stays: what the verb has made so far lives in it.
                let handle = self.handle(id, half)?;
                work(self.session()?, handle)
            }
            // kryoptic answers with a general error when another process destroyed the object meanwhile.
            Err(fault) if fault.remedy() == Remedy::Probe => {
                self.forget(id);
                self.handle(id, half)?;
                Err(fault)
            }
            result => result,
        }
    }

    /// All token objects of this name: of one half, or of any class. On a tenant's own token nothing else is looked for, so
    /// that no verb uses or makes it there.
    pub(super) fn find(&mut self, id: &ObjectId, half: Option<Half>) -> Result<Vec<ObjectHandle>, Fault> {
        if let Some(owner) = &self.owner
            && id.tenant() != Some(owner)
        {
            return Err(
                HsmError::Refused(format!("{id} does not belong on the token of tenant {owner}")).into()
            );
        }
        let mut template = vec![Attribute::Token(true), Attribute::Id(id.to_string().into_bytes())];
        template.extend(half.map(|half| Attribute::Class(half.class())));
        let found = self.session()?.find_objects(&template)?;
        if found.is_empty() {
            self.confirm_present()?;
        }
        Ok(found)
    }

    /// Drops the cached handles of `id`.
    pub(super) fn forget(&mut self, id: &ObjectId) {
        self.handles.retain(|(cached, _), _| cached != id);
    }

    /// Throws the working session away with all that an aborted verb left in it, and whatever handles may be
    /// stale. True if the token is lost and the process should be replaced.
    pub(super) fn recover(&mut self, fault: &Fault) -> bool {
        self.working = None;
        let remedy = fault.remedy();
        if remedy != Remedy::None {
            self.handles.clear();
            self.sealing_key = None;
        }
        match remedy {
            Remedy::None | Remedy::FindAgain => false,
            Remedy::NewSession | Remedy::Probe => !self.alive(),
            Remedy::NewProcess => true,
        }
    }

    /// "Not found" is believed only of a token that answers: SoftHSM lists nothing when its directory is gone.
    pub(super) fn confirm_present(&self) -> Result<(), Fault> {
        match token_info(&self.pkcs11, self.slot) {
            Ok(info) if info.token_initialized() && info.serial_number().trim() == self.serial => Ok(()),
            _ => Err(Fault::Module(RvError::TokenNotPresent, Function::FindObjects)),
        }
    }

    /// Notes that an object which should be there was not found.
    pub(super) fn miss(&mut self) {
        self.missed = true;
    }

    /// Whether the last call missed an object that another process may see. SoftHSM 2.6 counts the changes of a token in a file;
    /// a process that writes an object at the same time as another one takes the other's change for its own, and does not see
    /// that object until it is started again. One that was started just now is believed.
    pub(super) fn may_be_blind(&mut self) -> bool {
        std::mem::take(&mut self.missed) && self.opened.elapsed() > BELIEVED
    }

    /// Still logged in, and a new session does something.
    fn alive(&mut self) -> bool {
        let logged_in = self
            .permanent
            .get_session_info()
            .is_ok_and(|info| matches!(info.session_state(), cryptoki::session::SessionState::RwUser));
        logged_in && self.session().is_ok_and(|session| session.generate_random_vec(8).is_ok())
    }

    fn handle(&mut self, id: &ObjectId, half: Half) -> Result<ObjectHandle, Fault> {
        let key = (id.clone(), half);
        if let Some(&handle) = self.handles.get(&key) {
            return Ok(handle);
        }
        match self.find(id, Some(half))?[..] {
            [handle] => {
                self.handles.insert(key, handle);
                Ok(handle)
            }
            [] => {
                self.miss();
                Err(HsmError::NotFound(id.clone()).into())
            }
            _ => Err(HsmError::Refused(format!("more than one object {id} on the token")).into()),
        }
    }
}

/// Initialises the module's free slot as a token named `label` with these PINs.
///
/// # Errors
/// [`HsmError::Refused`] if there is no uninitialised token: one with content is never erased.
pub(super) fn initialize(module: &Path, label: &str, so_pin: &Pin, pin: &Pin) -> Result<(), HsmError> {
    let pkcs11 = load(module)?;
    let slots = pkcs11.get_slots_with_token().map_err(|error| unavailable("list the slots", error))?;
    let free = slots
        .into_iter()
        .find(|&slot| pkcs11.get_token_info(slot).is_ok_and(|info| !info.token_initialized()))
        .ok_or_else(|| HsmError::Refused("there is no uninitialised token in the module".into()))?;
    let so_pin = AuthPin::from(so_pin.0.clone());
    let done = pkcs11.init_token(free, &so_pin, label).and_then(|()| pkcs11.open_rw_session(free)).and_then(
        |session| {
            session.login(UserType::So, Some(&so_pin))?;
            session.init_pin(&AuthPin::from(pin.0.clone()))
        },
    );
    done.map_err(|error| Fault::from(error).into())
}

fn load(module: &Path) -> Result<Pkcs11, HsmError> {
    let pkcs11 = Pkcs11::new(module).map_err(|error| {
        HsmError::Configuration(format!(
            "cannot load the PKCS#11 module {}: {error}; check module in the configuration",
            module.display()
        ))
    })?;
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(|error| {
        unavailable("initialise the module (is its environment, e.g. SOFTHSM2_CONF, set?)", error)
    })?;
    Ok(pkcs11)
}

/// What the module says of a token.
fn token_info(pkcs11: &Pkcs11, slot: Slot) -> Result<TokenInfo, Error> {
    while_written(|| pkcs11.get_token_info(slot), |_| true)
}

/// Asks again for a tenth of a second while what fails passes: SoftHSM cannot read its token's file while another process logs
/// in.
fn while_written<T>(ask: impl Fn() -> Result<T, Error>, passes: impl Fn(&Error) -> bool) -> Result<T, Error> {
    for _ in 1..20 {
        match ask() {
            Err(error) if passes(&error) => std::thread::sleep(Duration::from_millis(5)),
            told => return told,
        }
    }
    ask()
}

fn find_slot(pkcs11: &Pkcs11, label: &str) -> Result<(Slot, TokenInfo), HsmError> {
    let slots = pkcs11.get_slots_with_token().map_err(|error| unavailable("list the slots", error))?;
    let tokens: Vec<(Slot, TokenInfo)> = slots
        .into_iter()
        .filter_map(|slot| Some((slot, token_info(pkcs11, slot).ok()?)))
        .filter(|(_, info)| info.token_initialized())
        .collect();
    let labels = tokens.iter().map(|(_, info)| info.label().trim_end()).collect::<Vec<_>>().join(", ");
    let present = if labels.is_empty() { NO_TOKEN.into() } else { format!("present: {labels}") };
    let mut matching = tokens.iter().filter(|(_, info)| info.label().trim_end() == label);
    match (matching.next(), matching.next()) {
        (Some((slot, info)), None) => Ok((*slot, info.clone())),
        (Some(_), Some(_)) => Err(HsmError::Configuration(format!(
            "more than one token is labelled {label:?}; give the token a label of its own"
        ))),
        (None, _) => Err(HsmError::Unavailable(format!(
            "the module has no token labelled {label:?} ({present}); check token in the configuration and the module's environment, e.g. SOFTHSM2_CONF"
        ))),
    }
}

fn unavailable(step: &str, error: Error) -> HsmError {
    HsmError::Unavailable(format!("cannot {step}: {}", HsmError::from(Fault::from(error))))
}

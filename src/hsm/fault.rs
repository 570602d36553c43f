//! Errors inside a worker: what the module answered, and what follows from it.

use super::HsmError;
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

/// Why a step inside a worker failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The module's answer.
    Module(RvError, Function),
    /// Already in the port's words.
    Port(HsmError),
}

/// What to do about a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing: the token is well.
    None,
    /// Find the object again: it was destroyed or replaced by another process.
    FindAgain,
    /// Replace the working session.
    NewSession,
    /// Ask the token whether it is still there: the code alone does not say it.
    Probe,
    /// The token or the log-in is gone: replace the process.
    NewProcess,
}

impl Fault {
    /// What follows from the code. The same fault has different codes on different modules, so the vague ones
    /// are only [`Remedy::Probe`].
    pub(super) fn remedy(&self) -> Remedy {
        let Self::Module(code, _) = self else { return Remedy::None };
        match code {
            RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::WrappingKeyHandleInvalid
            | RvError::UnwrappingKeyHandleInvalid => Remedy::FindAgain,
            RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid => Remedy::NewSession,
            RvError::GeneralError
            | RvError::FunctionFailed
            | RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::HostMemory => Remedy::Probe,
            RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::UserNotLoggedIn
            | RvError::CryptokiNotInitialized => Remedy::NewProcess,
            _ => Remedy::None,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(code, function) => Self::Module(code, function),
            other => Self::Port(HsmError::Module { operation: "the module".into(), code: other.to_string() }),
        }
    }
}

impl From<HsmError> for Fault {
    fn from(error: HsmError) -> Self {
        Self::Port(error)
    }
}

impl From<Fault> for HsmError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Port(error) => error,
            Fault::Module(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked,
                _,
            ) => Self::WrongPin,
            Fault::Module(code, function) => {
                Self::Module { operation: format!("C_{function:?}"), code: ckr_name(code) }
            }
        }
    }
}

/// `GeneralError` -> `CKR_GENERAL_ERROR`.
fn ckr_name(code: RvError) -> String {
    let mut name = String::from("CKR");
    for character in format!("{code:?}").chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_reported_by_its_pkcs11_name() {
        let fault = Fault::Module(RvError::GeneralError, Function::UnwrapKey);
        assert_eq!(HsmError::from(fault).to_string(), "C_UnwrapKey failed with CKR_GENERAL_ERROR");
    }
}

//! How a command ends: the exit codes and the sentence for standard error.

use crate::api::client::{ConnectError, FailureClass, describe};
use crate::config::ConfigError;
use crate::hsm::HsmError;
use std::fmt;
use std::process::ExitCode;

/// Exit codes other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was tried and failed, or a check found something.
    Failed = 1,
    /// The command, a file or a value is not as it must be; nothing was tried.
    Usage = 2,
    /// The broker refused: authentication or authorisation.
    Refused = 3,
    /// Not available now: try again later.
    Unavailable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong and what to do, for standard error.
    pub text: String,
}

impl Failure {
    /// It failed.
    pub fn failed(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, text: text.to_string() }
    }

    /// It was asked wrongly.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, text: text.to_string() }
    }

    /// Not now.
    pub fn unavailable(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Unavailable, text: text.to_string() }
    }

    /// The same with what was being done before it.
    pub fn during(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<FailureClass> for Exit {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Refused => Self::Refused,
            FailureClass::Unavailable => Self::Unavailable,
            FailureClass::Failed => Self::Failed,
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let explained = describe(&status);
        Self { exit: explained.class.into(), text: explained.text }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let exit = match &error {
            ConnectError::Address { .. } | ConnectError::Material(_) => Exit::Usage,
            other => other.class().into(),
        };
        Self { exit, text: error.to_string() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<HsmError> for Failure {
    fn from(error: HsmError) -> Self {
        let exit = match &error {
            HsmError::Configuration(_) => Exit::Usage,
            // A module that fails a call may do it the next time.
            HsmError::Unavailable(_)
            | HsmError::DeadlineExceeded(_)
            | HsmError::Overloaded
            | HsmError::Module { .. } => Exit::Unavailable,
            _ => Exit::Failed,
        };
        Self { exit, text: error.to_string() }
    }
}

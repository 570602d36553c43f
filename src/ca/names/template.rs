//! Text with places for MANO's values.

use crate::nfv::{CredentialId, TenantId, VduId, VnfInstanceId, VnfciId};
use std::fmt;

/// What the templates of a profile are filled with. A certificate issued ahead has no VNFCI yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameValues {
    /// `{tenant}`
    pub tenant: TenantId,
    /// `{vnf_instance}`
    pub vnf_instance: VnfInstanceId,
    /// `{vdu}`
    pub vdu: VduId,
    /// `{credential}`, a UUID
    pub credential: CredentialId,
    /// `{vnfci}`, with `issue = "at_claim"` only
    pub vnfci: Option<VnfciId>,
}

/// A value that cannot stand where the template puts it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate name {template:?} cannot be made: {problem}")]
pub struct NameError {
    /// The template as the profile has it.
    pub template: String,
    /// Which value does not fit, why, and what to do.
    pub problem: String,
}

/// A place in a template for one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// `{tenant}`
    Tenant,
    /// `{vnf_instance}`
    VnfInstance,
    /// `{vdu}`
    Vdu,
    /// `{credential}`
    Credential,
    /// `{vnfci}`
    Vnfci,
}

impl Variable {
    const ALL: [(&'static str, Self); 5] = [
        ("tenant", Self::Tenant),
        ("vnf_instance", Self::VnfInstance),
        ("vdu", Self::Vdu),
        ("credential", Self::Credential),
        ("vnfci", Self::Vnfci),
    ];

    fn value(self, values: &NameValues) -> Result<String, String> {
        Ok(match self {
            Self::Tenant => values.tenant.to_string(),
            Self::VnfInstance => values.vnf_instance.to_string(),
            Self::Vdu => values.vdu.to_string(),
            Self::Credential => values.credential.to_string(),
            Self::Vnfci => values
                .vnfci
                .as_ref()
                .ok_or("the VNFCI is not known before the claim; set issue = \"at_claim\" in the profile")?
                .to_string(),
        })
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, variable)| variable == self).map_or("", |(name, _)| name);
        write!(f, "{{{name}}}")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Variable(Variable),
}

/// Text with places for values, as the profile writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) text: String,
    pub(super) pieces: Vec<Piece>,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(char::is_control) {
            return Err(format!("{text:?} has a control character"));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let literal_end = rest.find(['{', '}']).unwrap_or(rest.len());
            let (literal, after) = rest.split_at(literal_end);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            rest = after;
            if let Some(after) = rest.strip_prefix('{') {
                let (name, after) =
                    after.split_once('}').ok_or_else(|| format!("{text:?} has a '{{' without '}}'"))?;
                let (_, variable) = Variable::ALL.into_iter().find(|(known, _)| *known == name).ok_or_else(|| {
                    format!(
                        "{{{name}}} is not known: use {{tenant}}, {{vnf_instance}}, {{vdu}}, {{credential}} or {{vnfci}}"
                    )
                })?;
                pieces.push(Piece::Variable(variable));
                rest = after;
            } else if !rest.is_empty() {
                return Err(format!("{text:?} has a '}}' without '{{'"));
            }
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    pub(super) fn uses(&self, variable: Variable) -> bool {
        self.pieces.contains(&Piece::Variable(variable))
    }

    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(text) => Some(text.as_str()),
            Piece::Variable(_) => None,
        })
    }

    /// Fills in the values, each passed through `place` first, which encodes or refuses it.
    pub(super) fn fill(
        &self,
        values: &NameValues,
        place: impl Fn(Variable, String) -> Result<String, String>,
    ) -> Result<String, NameError> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => filled.push_str(text),
                Piece::Variable(variable) => {
                    let value = variable
                        .value(values)
                        .and_then(|value| place(*variable, value))
                        .map_err(|problem| self.error(problem))?;
                    filled.push_str(&value);
                }
            }
        }
        Ok(filled)
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> NameError {
        NameError { template: self.text.clone(), problem: problem.into() }
    }
}

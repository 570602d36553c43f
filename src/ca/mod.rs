//! Certificates: profiles, what is to be signed, CRLs, OCSP, and validation of a client's path.
//!
//! This module builds to-be-signed DER and joins it with a signature that the HSM made elsewhere. It holds no key, knows
//! neither the store nor the token, and does no I/O but in `issuers`, which reach CAs outside of the broker.

mod ber;
pub mod cms;
pub mod crl;
pub mod csr;
mod encode;
mod extensions;
pub mod facts;
pub mod issue;
pub mod issuers;
pub mod names;
pub mod ocsp;
pub mod path;
pub mod profile;
pub mod request;

pub use crl::{CrlEntry, TbsCrl, crl};
pub use csr::{CertificationRequest, InvalidRequest, KeyRequest};
pub use facts::{CertificateFacts, InvalidCertificate, certificates_from_pem, crls_from_pem, pem};
pub use issue::{IssueError, SigningCa, Tbs, assemble};
pub use names::{NameError, NameValues};
pub use path::PathError;
pub use profile::{OnEmpty, Profile, ProfileError};

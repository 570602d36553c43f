//! Goal: a certificate is accepted exactly when RFC 5280 (with RFC 9618) says so, whatever is presented, at bounded cost.
//! Method: the whole of two public suites, NIST PKITS and C2SP x509-limbo, every case right or skipped by name with its
//! reason; and certificates that are cut, changed and made up.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like the tests themselves")]

mod bounds;
mod issuers;
mod limbo;
mod pkits;
mod usages;

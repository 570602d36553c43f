//! The gRPC faces: one file per service, between proto and domain.
//!
//! Every handler goes through [`gate::Gate`], which identifies the caller, asks the authorisation table and
//! records refusals; [`error`] has the one match from errors to statuses, [`parse`] the fields.

mod admin;
mod audit;
pub mod client;
mod credential;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gate;
mod lifecycle;
mod parse;
mod pool;
mod trace;

pub use gate::{Face, Gate};

use proto::admin_service_server::AdminServiceServer;
use proto::audit_service_server::AuditServiceServer;
use proto::credential_service_server::CredentialServiceServer;
use proto::lifecycle_service_server::LifecycleServiceServer;
use proto::pool_service_server::PoolServiceServer;
use tonic::service::Routes;

/// The generated types of `proto/keybroker/v1/`. They stay at this edge.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)] // generated code
pub mod proto {
    tonic::include_proto!("keybroker.v1");

    /// The descriptor set, for the reflection service.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keybroker_descriptor.bin"));
}

/// The largest message of a VNFCI: a claim has a few hundred bytes, a confirmation 16 signatures.
const VNFCI_MESSAGE_MAX: usize = 64 * 1024;
/// The largest message of MANO or an operator: 1,000 announcements.
const MANAGEMENT_MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// The services of one listener.
pub fn services(gate: Gate) -> Routes {
    match gate.face() {
        Face::Bootstrap | Face::Vnfci => Routes::new(
            CredentialServiceServer::new(credential::Credentials(gate))
                .max_decoding_message_size(VNFCI_MESSAGE_MAX),
        ),
        Face::Management => Routes::new(
            PoolServiceServer::new(pool::Pools(gate.clone()))
                .max_decoding_message_size(MANAGEMENT_MESSAGE_MAX),
        )
        .add_service(
            LifecycleServiceServer::new(lifecycle::Lifecycle(gate.clone()))
                .max_decoding_message_size(MANAGEMENT_MESSAGE_MAX),
        )
        .add_service(
            AuditServiceServer::new(audit::Audit(gate.clone()))
                .max_decoding_message_size(MANAGEMENT_MESSAGE_MAX),
        )
        .add_service(
            AdminServiceServer::new(admin::Admin(gate)).max_decoding_message_size(MANAGEMENT_MESSAGE_MAX),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorisation::Rpc;
    use prost::Message;
    use std::collections::BTreeSet;

    /// Authorised by an initial credential, or open to whoever reached the listener's own check.
    const WITHOUT_A_ROLE: [&str; 2] = ["Claim", "GetTrustChain"];

    #[test]
    fn every_rpc_of_the_proto_is_in_the_authorisation_table_or_a_known_exception() {
        let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
        let in_proto: Vec<String> = set
            .file
            .iter()
            .filter(|file| file.package() == "keybroker.v1")
            .flat_map(|file| &file.service)
            .flat_map(|service| &service.method)
            .map(|method| method.name().to_owned())
            .collect();
        let in_table: BTreeSet<&str> = Rpc::ALL.iter().map(|rpc| rpc.as_str()).collect();
        for name in &in_proto {
            assert!(in_table.contains(name.as_str()) || WITHOUT_A_ROLE.contains(&name.as_str()), "{name}");
        }
        // The calls with a role that come by another way than gRPC: EST.
        let by_est = [Rpc::EnrolVnfci, Rpc::EnrolVouched, Rpc::RenewIdentity].map(|rpc| rpc.as_str());
        for name in in_table.into_iter().filter(|name| !by_est.contains(name)) {
            assert!(in_proto.iter().any(|known| known == name), "{name} is in no service");
        }
        let distinct: BTreeSet<_> = in_proto.iter().collect();
        assert_eq!(distinct.len(), in_proto.len(), "two RPCs of one name: the table and metrics mix them up");
    }
}

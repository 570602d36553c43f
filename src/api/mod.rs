//! The gRPC faces: one file per service, between proto and domain.

/// The generated types of `proto/keybroker/v1/`. They stay at this edge.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)] // generated code
pub mod proto {
    tonic::include_proto!("keybroker.v1");

    /// The descriptor set, for the reflection service.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keybroker_descriptor.bin"));
}

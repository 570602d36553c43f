//! The fixture, and the list of implementations.

mod at_claim;
mod audit;
mod awaiting;
mod claims;
mod configuration;
mod enrolments;
mod epochs;
mod fixture;
mod leases;
mod lifecycle;
mod postgres;
mod production;
mod quotas;
mod rearming;
mod recovery;
mod renewal;
mod requests;
mod sequences;
mod sqlite;
mod upgrade;
mod vnfcis;

/// Runs each promise on each implementation, as `PROMISE::STORE`. Another implementation is one more line.
macro_rules! promises {
    ($($promise:ident,)+) => {
        $(mod $promise {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$promise($crate::store::fixture::Fixture::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$promise($crate::store::fixture::Fixture::postgres().await).await;
            }
        })+
    };
}
pub(crate) use promises;

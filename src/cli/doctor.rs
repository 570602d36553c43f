//! stub
use super::failure::Failure; use super::output::OutputArgs;
#[derive(Debug, clap::Args)] pub struct DoctorArgs {}
pub async fn run(_a: DoctorArgs, _o: OutputArgs) -> Result<(), Failure> { Ok(()) }

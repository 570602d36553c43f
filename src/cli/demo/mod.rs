//! stub
use super::failure::Failure;
use super::output::OutputArgs;
#[derive(Debug, clap::Args)]
pub struct DemoArgs {}
pub async fn run(_a: DemoArgs, _o: OutputArgs) -> Result<(), Failure> {
    Ok(())
}

//! `keybroker man` and `keybroker completions`: made from the command line's own definition.

use super::Cli;
use super::failure::Failure;
use super::output::line;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::PathBuf;

/// `man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Directory that the pages are written to, one for each command; made if it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Writes `keybroker.1`, `keybroker-serve.1` and so on.
pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", args.out.display()));
    std::fs::create_dir_all(&args.out).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.out).map_err(failed)
}

/// Prints the completion script.
pub(super) fn completions(args: &CompletionsArgs) {
    // Into memory first: the generator panics if it cannot write, as when its output is cut by `head`.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "keybroker", &mut script);
    line(&String::from_utf8_lossy(&script));
}

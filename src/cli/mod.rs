//! The command line: one file per command, or per noun where the commands are small.
//!
//! Results go to standard output, everything else to standard error. Exit codes: [`failure::Exit`].

mod anchor;
mod assembly;
mod audit;
mod batches;
mod bench;
mod ca;
mod certificates;
mod chain;
mod claim;
mod connection;
mod demo;
mod doctor;
mod est_clients;
pub mod failure;
mod files;
mod identity;
pub mod init;
mod issuer;
mod manual;
mod output;
mod pool;
mod processes;
mod profile;
mod recover;
mod release;
mod renew;
pub mod serve;
mod software_ca;
mod tenant;
mod trust;
mod vnf;
mod vnfci;

pub use connection::ClientProfile;
pub use files::{Readers, create_new, private_directory, replace};

use clap::{Parser, Subcommand};
use failure::Failure;
use output::OutputArgs;
use std::process::ExitCode;

/// PKCS#11 HSM-backed key and certificate broker for NFV (ETSI GR NFV-SEC 005).
#[derive(Debug, Parser)]
#[command(name = "keybroker", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not available now.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole story against a fresh SoftHSM2 token, and check every step of it
    Demo(demo::DemoArgs),
    /// Create token objects, database and first client certificates; idempotent, never overwrites
    Init(init::InitArgs),
    /// After the database was rolled back: destroy what it could deliver again, withdraw what it forgot, begin a new log
    Recover(recover::RecoverArgs),
    /// Run the broker; SIGTERM drains, SIGHUP reloads
    Serve(serve::ServeArgs),
    /// Tenants (operator)
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Trust anchors for initial credentials (operator)
    #[command(subcommand)]
    Anchor(anchor::AnchorCommand),
    /// Clients of the management listener (operator)
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// The CA hierarchy: further CAs, rollover, external roots, ceremonies (operator)
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Certificate profiles (operator)
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// CAs outside of the broker: our client certificate's request (operator, on the broker's machine)
    #[command(subcommand)]
    Issuer(issuer::IssuerCommand),
    /// Pools of ready credentials (MANO)
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// VNFC instances: announce them and report their end (MANO)
    #[command(subcommand)]
    Vnfci(vnfci::VnfciCommand),
    /// VNF instances: scale them in, end them (MANO)
    #[command(subcommand)]
    Vnf(vnf::VnfCommand),
    /// Claim all credentials of this VNFCI, install and confirm them (VNFCI)
    Claim(claim::ClaimArgs),
    /// Replace the claimed credentials by fresh ones before they expire (VNFCI)
    Renew(renew::RenewArgs),
    /// Give the claimed credentials back and delete their keys (VNFCI)
    Release(release::ReleaseArgs),
    /// Read, export and verify the audit log (auditor; verify works offline)
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Check module, token, store, certificates and addresses; say what to do
    Doctor(doctor::DoctorArgs),
    /// Write man pages, one for each command
    Man(manual::ManArgs),
    /// Print a shell's completion script
    Completions(manual::CompletionsArgs),
    /// Measure the broker against floors that are measured in turn with it
    Bench(bench::BenchArgs),
    /// A process of `bench`
    #[command(hide = true, subcommand)]
    BenchPart(bench::BenchPart),
    /// Serve PKCS#11 calls to a broker over standard input
    #[command(hide = true)]
    HsmWorker,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too, with exit code 0.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    // Before anything secret is read, whatever the command: PINs, a VNFCI's keys, clients' keys.
    crate::hardening::forbid_dumps();
    // A worker loads a module that may not stand other threads: nothing is started before it.
    if matches!(cli.command, Command::HsmWorker) {
        return crate::hsm::worker_main();
    }
    if let Command::BenchPart(part) = &cli.command
        && let Some(ended) = part.run_alone()
    {
        return exit_code(ended);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("keybroker: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    exit_code(runtime.block_on(run(cli)))
}

fn exit_code(ended: Result<(), Failure>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("keybroker: {failure}");
            failure.exit.into()
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let output = cli.output;
    match cli.command {
        Command::Demo(args) => demo::run(args, output).await,
        Command::Init(args) => init::command(args, output).await,
        Command::Recover(args) => recover::command(args, output).await,
        Command::Serve(args) => serve::command(args).await,
        Command::Tenant(command) => tenant::run(command, output).await,
        Command::Anchor(command) => anchor::run(command, output).await,
        Command::Identity(command) => identity::run(command, output).await,
        Command::Ca(command) => ca::run(command, output).await,
        Command::Profile(command) => profile::run(command, output).await,
        Command::Issuer(command) => issuer::run(command, output).await,
        Command::Pool(command) => pool::run(command, output).await,
        Command::Vnfci(command) => vnfci::run(command, output).await,
        Command::Vnf(command) => vnf::run(command, output).await,
        Command::Claim(args) => claim::run(args, output).await,
        Command::Renew(args) => renew::run(args, output).await,
        Command::Release(args) => release::run(args, output).await,
        Command::Audit(command) => audit::run(command, output).await,
        Command::Doctor(args) => doctor::run(args, output).await,
        Command::Man(args) => manual::man(&args),
        Command::Completions(args) => {
            manual::completions(&args);
            Ok(())
        }
        Command::Bench(args) => bench::run(args, output).await,
        Command::BenchPart(part) => part.run().await,
        Command::HsmWorker => Err(Failure::usage("hsm-worker is started by the broker, not by hand")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

//! The `keybroker` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    keybroker::cli::main()
}

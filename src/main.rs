use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("hsm-worker") => keybroker::hsm::worker_main(),
        _ => {
            eprintln!("keybroker: nothing but hsm-worker is built in yet");
            ExitCode::from(2)
        }
    }
}

//! The control file: one rule per line, `FUNCTION FAULT [ARGUMENT] [times N]`; the first that fits counts.
//!
//! FUNCTION is a name such as `C_Sign`, `C_GenerateKey:token` for the generation of token objects only, or `*`. FAULT:
//!
//! | fault | what happens |
//! |---|---|
//! | `delay MS` | the call waits so many milliseconds, then is forwarded |
//! | `return HEX` | the call is not forwarded and returns this CKR code |
//! | `pretend` | the call is not forwarded and returns CKR_OK |
//! | `absent` | no slots, and CKR_DEVICE_REMOVED for every other call |
//! | `invalidate` | all sessions are closed, then the call is forwarded |
//! | `hang` | the call never returns |
//! | `crash` | the process aborts |
//!
//! With `times N` a rule fits N times, counted over all processes by files beside the control file. Every fault is
//! appended to the file `CONTROL.log` as `FUNCTION FAULT PID`.

use cryptoki_sys::{CK_RV, CKR_DEVICE_REMOVED, CKR_OK};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// What a call is to do in place of being forwarded.
pub(crate) enum Fault {
    /// Return this code.
    Return(CK_RV),
    /// Close all sessions first.
    Invalidate,
}

/// The fault for a call of `function`, after what can be done here (waiting, ending the process) was done.
pub(crate) fn fault(function: &str) -> Option<Fault> {
    let control = PathBuf::from(std::env::var_os("PKCS11_FAULT_CONTROL")?);
    let rules = std::fs::read_to_string(&control).ok()?;
    let name = function.split(':').next().unwrap_or(function);
    for (line, rule) in rules.lines().enumerate() {
        let words: Vec<&str> = rule.split_whitespace().collect();
        let [subject, fault, arguments @ ..] = words.as_slice() else { continue };
        if !["*", function, name].contains(subject) || !ticket(&control, line, arguments) {
            continue;
        }
        log(&control, function, fault);
        let number = |radix| {
            let text = arguments.first().map_or("0", |text| text.trim_start_matches("0x"));
            u64::from_str_radix(text, radix).unwrap_or(0)
        };
        match *fault {
            "delay" => {
                thread::sleep(Duration::from_millis(number(10)));
                return None;
            }
            "return" => return Some(Fault::Return(number(16) as CK_RV)),
            "pretend" => return Some(Fault::Return(CKR_OK)),
            "absent" => return Some(Fault::Return(CKR_DEVICE_REMOVED)),
            "invalidate" => return Some(Fault::Invalidate),
            "hang" => loop {
                thread::park();
            },
            "crash" => std::process::abort(),
            // A misspelt rule must not look like a broker that copes.
            _ => std::process::exit(99),
        }
    }
    None
}

/// Whether a rule may be used once more.
fn ticket(control: &Path, line: usize, arguments: &[&str]) -> bool {
    let Some(at) = arguments.iter().position(|word| *word == "times") else { return true };
    let times = arguments.get(at + 1).and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
    (0..times).any(|number| {
        let file = control.with_extension(format!("ticket-{line}-{number}"));
        OpenOptions::new().write(true).create_new(true).open(file).is_ok()
    })
}

fn log(control: &Path, function: &str, fault: &str) {
    if let Ok(mut log) = OpenOptions::new().append(true).create(true).open(control.with_extension("log")) {
        // A log that cannot be written shows in the test that reads it.
        let _ = writeln!(log, "{function} {fault} {}", std::process::id());
    }
}

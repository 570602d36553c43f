//! Fuzzing of the frames between broker and worker, in both directions: the module in the worker is not trusted.

use super::protocol::{Hello, Request, Response, Welcome, frame, read_frame};
use super::quirks::ec_point;

/// A stream of frames as either side reads it.
pub(crate) fn frames(data: &[u8]) {
    let read = |mut stream: &[u8], which: usize| -> std::io::Result<()> {
        for _ in 0..64 {
            match which {
                0 => drop(read_frame::<Hello>(&mut stream)?),
                1 => drop(read_frame::<Welcome>(&mut stream)?),
                2 => drop(read_frame::<Response>(&mut stream)?),
                _ => {
                    let request: Request = read_frame(&mut stream)?;
                    let written = frame(&request)?;
                    let again: Request = read_frame(&mut &written[..])?;
                    assert_eq!(frame(&again)?, written, "a request changes when it is read again");
                }
            }
        }
        Ok(())
    };
    for which in 0..4 {
        // An error ends the worker, or the worker's process is replaced.
        let _ = read(data, which);
    }
    for length in [65, 97] {
        if let Some(point) = ec_point(data, length) {
            assert_eq!(point.len(), length);
        }
    }
}

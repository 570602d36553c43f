#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keybroker::fuzzing::run("ocsp", data));

#![no_main]

libfuzzer_sys::fuzz_target!(init: anatomix_fuzz::abort_on_own_panics(), |bytes: &[u8]| anatomix::fuzzing::radiograph(bytes));

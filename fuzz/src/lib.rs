//! What all fuzz targets share; what they call is `sdk/src/fuzzing.rs`.

/// Replaces the engine's panic hook, which ends the process at every panic. A decoder of a library may panic, because the SDK catches that
/// and turns it into an error. The process is to end only at a panic in the project's own code, caught or not, and at a panic that nobody
/// catches (which the engine sees by itself).
pub fn abort_on_own_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let is_own = panic.location().is_some_and(|location| location.file().contains("sdk/src/"));
        if is_own || std::env::var_os("SHOW_PANICS").is_some() {
            eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
        }
        if is_own {
            std::process::abort();
        }
    }));
}

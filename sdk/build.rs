//! What `libanatomix.so` shows of itself: its name, and the functions of the header alone.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libanatomix.so");
        // The JPEG 2000 decoder keeps C's names; a program that links the C original must not meet them here.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
}

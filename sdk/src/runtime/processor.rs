//! Kinds of processors, by the instructions that ONNX Runtime's kernels for 8 bits use.
//!
//! Kernels for different kinds give the same results up to rounding, unless a sum overflows. Kernels for processors without VNNI add pairs
//! of products in 16 bits, which can overflow. So a graph that is correct on one kind may be wrong on another.

/// All names that [`processor`] can return.
pub const PROCESSORS: [&str; 9] = [
    "x86-64 AVX-512 VNNI",
    "x86-64 AVX-VNNI",
    "x86-64 AVX-512",
    "x86-64 AVX2",
    "x86-64",
    "aarch64 I8MM",
    "aarch64 dot product",
    "aarch64",
    "another processor",
];

/// The kind of this machine's processor, one of [`PROCESSORS`].
pub fn processor() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512vnni") {
            "x86-64 AVX-512 VNNI"
        } else if has!("avxvnni") {
            "x86-64 AVX-VNNI"
        } else if has!("avx512bw") {
            "x86-64 AVX-512"
        } else if has!("avx2") {
            "x86-64 AVX2"
        } else {
            "x86-64"
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::is_aarch64_feature_detected as has;
        if has!("i8mm") {
            "aarch64 I8MM"
        } else if has!("dotprod") {
            "aarch64 dot product"
        } else {
            "aarch64"
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    "another processor"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_one_of_all() {
        assert!(PROCESSORS.contains(&processor()), "{}", processor());
    }
}

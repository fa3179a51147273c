//! Compiles the calls of torch's c10d, and lets the trainer and its tests find libtorch without LD_LIBRARY_PATH.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/distributed/c10d");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    println!("cargo:rerun-if-env-changed=NCCL_HOME");
    println!("cargo:rerun-if-env-changed=ANATOMIX_NCCL");
    // torch-sys says which libtorch it found: the one of the Python environment, or of LIBTORCH.
    if let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
        c10d(Path::new(&folder));
    }
    // No symbol of the CUDA libraries is referenced; libtorch pulls them in if it is linked nevertheless.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch");
    }
}

fn c10d(libraries: &Path) {
    const FOLDER: &str = "src/distributed/c10d";
    let headers = libraries.with_file_name("include");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).define("USE_C10D_GLOO", None).define("USE_DISTRIBUTED", None);
    build.files(["group.cpp", "gradients.cpp", "adamw.cpp"].map(|name| format!("{FOLDER}/{name}")));
    // The folder has declarations in place of Gloo's headers, for a libtorch that lacks them.
    build.includes([headers.join("torch/csrc/api/include"), headers, FOLDER.into()]);
    // The headers of NCCL and CUDA are in packages beside the wheel, if they are installed whole, or where the environment says.
    let packages = libraries.ancestors().nth(2).map(|packages| packages.join("nvidia"));
    let beside = packages.iter().flat_map(std::fs::read_dir).flatten().flatten().map(|entry| entry.path());
    let named = ["CUDA_HOME", "NCCL_HOME"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let includes: Vec<PathBuf> = named.chain(beside).map(|folder| folder.join("include")).collect();
    let headers = ["nccl.h", "cuda_runtime_api.h", "crt/host_config.h", "nv/target"];
    let lacks = |header: &&str| !includes.iter().any(|include| include.join(header).exists());
    let (missing, cuda) = (headers.into_iter().filter(lacks).collect::<Vec<_>>(), libraries.join("libtorch_cuda.so"));
    if std::env::var_os("ANATOMIX_NCCL").is_some() && !(cuda.exists() && missing.is_empty()) {
        let what = if cuda.exists() { missing.join(", ") } else { cuda.display().to_string() };
        eprintln!(
            "error: training on several GPUs needs {what}; `make cuda-headers` installs the headers of CUDA and NCCL into .venv, and"
        );
        eprintln!("CUDA_HOME and NCCL_HOME name folders that have them. libtorch must be a CUDA build.");
        std::process::exit(1);
    }
    if cuda.exists() && missing.is_empty() {
        build.includes(&includes).define("USE_C10D_NCCL", None).define("ANATOMIX_NCCL", None);
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
    }
    build.compile("anatomix_c10d");
}

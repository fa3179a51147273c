#!/bin/sh
# Builds the fuzz targets and runs them one after the other: fuzz/run.sh [TARGET...]. `make fuzz` calls it.
#
# FUZZ_SECONDS (3600) is the time for each target. cargo-fuzz builds them where it and a nightly toolchain are installed, with
# AddressSanitizer; else stable Rust does, with the same engine. A target starts from tests/corpus/TARGET and keeps what it adds in
# build/fuzz/TARGET. What breaks a promise is written to build/fuzz/found; the other targets still run.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-3600}
[ $# -gt 0 ] || set -- radiograph dicom manifest sentences saved_study text json_schema
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR="$PWD/target/fuzz"

if cargo +nightly fuzz --version > /dev/null 2>&1; then
  cargo +nightly fuzz build --fuzz-dir fuzz --target "$host"
else
  # `--target` keeps these flags from build scripts.
  coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
  coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
  RUSTFLAGS="$coverage --cfg fuzzing -Ccodegen-units=1" cargo build --release --target "$host" --manifest-path fuzz/Cargo.toml
fi

# One thread, so that a run depends on its input only.
export ORT_DYLIB_PATH="$PWD/.deps/onnxruntime/libonnxruntime.so" RAYON_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0
failed=
for target in "$@"; do
  case $target in
    saved_study | manifest | json_schema) longest=8192 ;;
    *) longest=16384 ;;
  esac
  words=fuzz/words/$target
  mkdir -p "build/fuzz/$target" build/fuzz/found
  # More than 2 GiB of memory, or 25 seconds, for an input of this length breaks a promise, too.
  "$CARGO_TARGET_DIR/$host/release/$target" "build/fuzz/$target" "tests/corpus/$target" -artifact_prefix="build/fuzz/found/$target-" \
    -max_total_time="$seconds" -max_len="$longest" -rss_limit_mb=2048 -timeout=25 -print_final_stats=1 \
    $([ ! -e "$words" ] || echo "-dict=$words") || failed="$failed $target"
done
[ -z "$failed" ] || { echo "error: inputs in build/fuzz/found break promises of:$failed" >&2; exit 1; }

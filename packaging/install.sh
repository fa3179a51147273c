#!/bin/sh
# Puts what `make build` built into a folder: packaging/install.sh PREFIX. `make install` and `make dist` call it, from the root of the
# repository, with VERSION, SONAME, RELEASE (the folder of the built files), ORT (the one of ONNX Runtime), ORT_VERSION, SBOM and AUDIT set.
set -eu
umask 022
prefix=$1

fail() {
  echo "error: $1" >&2
  exit 1
}

for file in "$RELEASE/anatomix" "$RELEASE/libanatomix.so" "$ORT/libonnxruntime.so.$ORT_VERSION" "$ORT/LICENSE" "$SBOM" "$AUDIT"; do
  [ -e "$file" ] || fail "$file is missing; run \`make build\` first"
done
mkdir -p "$prefix" 2> /dev/null && [ -w "$prefix" ] ||
  fail "$prefix cannot be written; choose another PREFIX, or install as a user who may write there (after \`make build\`)"

# $1: folder below the prefix; others: files.
put() {
  folder=$prefix/$1
  shift
  mkdir -p "$folder"
  for file; do
    # A file that a running program has mapped is replaced, never written into.
    rm -f "$folder/${file##*/}"
    cp "$file" "$folder/"
    chmod u=rw,go=r "$folder/${file##*/}"
  done
}

# $1: a shared library in lib; $2: its soname; $3: the name that linkers look for.
link() {
  ln -sfn "$1" "$prefix/lib/$2"
  ln -sfn "$2" "$prefix/lib/$3"
}

# Symbols and lines of the source stay in target/; the installed copies have none.
mkdir -p "$prefix/bin" "$prefix/lib"
rm -f "$prefix/bin/anatomix" "$prefix/lib/libanatomix.so.$VERSION"
"${STRIP:-strip}" --strip-all -o "$prefix/bin/anatomix" "$RELEASE/anatomix"
"${STRIP:-strip}" --strip-unneeded -o "$prefix/lib/libanatomix.so.$VERSION" "$RELEASE/libanatomix.so"
# The crates that are linked, where scanners for vulnerable ones look for them.
for file in "$prefix/bin/anatomix" "$prefix/lib/libanatomix.so.$VERSION"; do
  "${OBJCOPY:-objcopy}" --add-section ".dep-v0=$AUDIT" --set-section-flags .dep-v0=noload,readonly "$file"
done
chmod u=rwx,go=rx "$prefix/bin/anatomix"
chmod u=rw,go=r "$prefix/lib/libanatomix.so.$VERSION"
link "libanatomix.so.$VERSION" "$SONAME" libanatomix.so
put lib "$ORT/libonnxruntime.so.$ORT_VERSION"
link "libonnxruntime.so.$ORT_VERSION" libonnxruntime.so.1 libonnxruntime.so

put include include/anatomix.h include/anatomix.hpp include/anatomix_study.hpp include/anatomix_types.hpp

# $1: folder below the prefix; $2: name of a template.
fill() {
  mkdir -p "$prefix/$1"
  sed -e "s/@VERSION@/$VERSION/" -e "s/@MINOR_VERSION@/${VERSION%.*}/" -e "s/@SONAME@/$SONAME/" \
    -e "s/@ORT_VERSION@/$ORT_VERSION/" "packaging/$2.in" > "$prefix/$1/$2"
}

fill lib/pkgconfig anatomix.pc
fill lib/cmake/anatomix anatomix-config.cmake
fill lib/cmake/anatomix anatomix-config-version.cmake

# Manual pages and completions come from the program itself.
"$RELEASE/anatomix" man "$prefix/share/man/man1"

# $1: shell; $2: folder below the prefix; $3: file.
complete() {
  mkdir -p "$prefix/$2"
  "$RELEASE/anatomix" completions "$1" > "$prefix/$2/$3"
}

complete bash share/bash-completion/completions anatomix
complete zsh share/zsh/site-functions _anatomix
complete fish share/fish/vendor_completions.d anatomix.fish

put share/anatomix "$SBOM" examples/phantom.dcm include/anatomix.abi
put share/anatomix/example examples/installed/CMakeLists.txt examples/installed/report.c \
  examples/cpp/minimal.cpp examples/cpp/complete.cpp
put share/anatomix/reference-bundle examples/reference-bundle/*
doc=share/doc/anatomix
put $doc LICENSE-MIT LICENSE-APACHE sdk/assets/DejaVuSans.LICENSE packaging/THIRD-PARTY.txt CHANGELOG.md docs/install.md docs/abi.md \
  docs/model-card.md
put $doc/onnxruntime "$ORT/LICENSE" "$ORT/ThirdPartyNotices.txt"

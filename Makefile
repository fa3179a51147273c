# `make help` lists the targets. All files are written to .deps, .venv, .venv-bench, .venv-python, target, build, data and runs in this
# folder.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# Targets run one after another: tests measure times, and cargo uses all cores itself.
.NOTPARALLEL:

# Python 3.11, and cargo with Rust 1.92 or newer.
PYTHON ?= python3.11
CARGO ?= cargo
# Device for training: cpu or cuda.
DEVICE ?= cpu
# Number of phantoms of `make evaluate`.
COUNT ?= 600
# Measurements of `make bench`; empty means all.
WORKS ?=
# Seconds for each target of `make fuzz`, and which of them; empty means all.
FUZZ_SECONDS ?= 3600
TARGET ?=

# cargo writes to the folder in which this file and the tests look for its results.
export CARGO_TARGET_DIR := $(CURDIR)/target
# Panics name source files. Without the first flags a library would name the folders of the machine that built it. Without the last one two
# builds would differ: see docs/install.md.
CARGO_HOME ?= $(HOME)/.cargo
export RUSTFLAGS ?= --remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(CARGO_HOME)=cargo -C llvm-args=-licm-mssa-max-acc-promotion=32
RELEASE := target/release
ANATOMIX := $(RELEASE)/anatomix
TRAINER := $(RELEASE)/anatomix-trainer
# Features of the SDK: the program, and the C interface for libanatomix.so.
FEATURES := cli,capi
# The name that programs look for at run time. Its number changes only if the C interface breaks (docs/abi.md).
SONAME := libanatomix.so.0
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
BUNDLE := examples/reference-bundle
PHANTOM := examples/phantom.dcm
RG1 := .deps/radiographs/RG1_UNCI.dcm

# ONNX Runtime, which is loaded at run time, comes from a wheel with this SHA-256, by architecture.
ORT_VERSION := 1.31.1
ORT_x86_64 := 5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f
ORT_aarch64 := da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3
MACHINE := $(shell uname -m)
ORT_SHA256 := $(ORT_$(MACHINE))
ORT := .deps/onnxruntime/libonnxruntime.so
DATA_VERSION := 1.0.0
DATA_SHA256 := 622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637

# What `make install` and `make dist` make: a folder, a name for it, the bill of materials. Times in them are that of the commit.
PREFIX ?= /usr/local
DESTDIR ?=
DIST := anatomix-$(VERSION)-$(MACHINE)-linux
SBOM := build/sbom.cdx.json
AUDIT := build/dep-v0
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2> /dev/null || echo 0)
INSTALL = VERSION=$(VERSION) SONAME=$(SONAME) RELEASE=$(RELEASE) ORT=$(dir $(ORT)) ORT_VERSION=$(ORT_VERSION) SBOM=$(SBOM) \
  AUDIT=$(AUDIT) packaging/install.sh
ABOUT_VERSION := 0.9.3

# The trainer links the libtorch of .venv, which it finds through that environment's Python.
VENV := .venv/.installed
# The Python package is built and tested in an environment of its own.
VENV_PYTHON := .venv-python/.installed
WHEELS := build/wheels
# The peers of `make bench` are in a second environment, which extends .venv.
BENCH := .venv-bench/.installed
WITH_TORCH := PATH="$(CURDIR)/.venv/bin:$$PATH" LIBTORCH_USE_PYTORCH=1

##@ Using it

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: deps
deps: $(ORT) $(RG1) ## Fetch ONNX Runtime and a real radiograph from their PyPI wheels, by hash

.PHONY: build
build: $(ORT) sbom ## Build the library and the command line: target/release/libanatomix.so and target/release/anatomix
	$(CARGO) build --release --features $(FEATURES) -p anatomix
	@# The shared library has a soname and exports only the header's symbols. (The JPEG 2000 decoder has the names of the C library that
	@# it was translated from. Exported, they would collide in a program that links that library.)
	$(CARGO) rustc --release --features $(FEATURES) -p anatomix --lib --crate-type cdylib -- \
	  -C link-arg=-Wl,-soname,$(SONAME) -C link-arg=-Wl,--exclude-libs,ALL
	@ln -sfn libanatomix.so $(RELEASE)/$(SONAME)
	@ln -sfn ../../$(ORT) $(RELEASE)/libonnxruntime.so

.PHONY: install
install: ## Copy what `make build` built to PREFIX (/usr/local), below DESTDIR where that is set; see docs/install.md
	@$(INSTALL) '$(DESTDIR)$(PREFIX)'

.PHONY: dist
dist: build ## Pack it: build/dist/anatomix-VERSION-MACHINE-linux.tar.gz, the same bytes from the same commit
	@rm -rf build/dist && mkdir -p build/dist
	@$(INSTALL) build/dist/$(DIST)
	@tar --directory build/dist --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(SOURCE_DATE_EPOCH) --format=gnu -cf - $(DIST) | \
	  gzip -9 -n > build/dist/$(DIST).tar.gz.part
	@mv build/dist/$(DIST).tar.gz.part build/dist/$(DIST).tar.gz
	@cd build/dist && sha256sum $(DIST).tar.gz | tee $(DIST).tar.gz.sha256

.PHONY: sign
sign: ## Sign the tarball of `make dist` with minisign's secret key KEY: a file .minisig beside it
	@test -n '$(KEY)' || { echo "error: name the secret key: make sign KEY=FILE" >&2; exit 1; }
	@test -e build/dist/$(DIST).tar.gz || { echo "error: build/dist/$(DIST).tar.gz is missing; run make dist" >&2; exit 1; }
	@command -v minisign > /dev/null || { echo "error: minisign is needed (Debian's package minisign)" >&2; exit 1; }
	minisign -S -s '$(KEY)' -m build/dist/$(DIST).tar.gz -t '$(DIST).tar.gz'

# The software bill of materials, and the crates of it in the form in which they are put into the installed files. Its time is that of the
# commit, so it is written anew each time.
.PHONY: sbom
sbom: $(ORT)
	@mkdir -p $(dir $(SBOM))
	@SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(PYTHON) packaging/sbom.py $(FEATURES) $(MACHINE)-unknown-linux-gnu $(ORT_VERSION) \
	  $(ORT).$(ORT_VERSION) > $(SBOM)
	@$(PYTHON) packaging/audit.py $(SBOM) $(AUDIT)

.PHONY: python
python: $(VENV_PYTHON) ## Build the Python package's wheel in build/wheels, and install it into .venv-python
	@rm -rf $(WHEELS)
	.venv-python/bin/maturin build --release --locked --quiet --interpreter .venv-python/bin/python \
	  --manifest-path bindings/python/Cargo.toml --out $(WHEELS)
	.venv-python/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall $(WHEELS)/*.whl
	@ls -1 $(WHEELS)/*.whl

.PHONY: demo
demo: build deps ## Read a phantom and a real radiograph: report, answer and overlays in build/demo
	@mkdir -p build/demo
	@for image in $(PHANTOM) $(RG1); do \
	  name=$$(basename $$image .dcm); \
	  echo; echo "== $$image"; \
	  $(ANATOMIX) perceive $$image --bundle $(BUNDLE) --overlay build/demo/$$name.png; \
	  echo; echo "-- report"; \
	  $(ANATOMIX) report $$image --bundle $(BUNDLE); \
	  echo; echo "-- Where is the left lung?"; \
	  $(ANATOMIX) ask $$image "Where is the left lung?" --bundle $(BUNDLE) --overlay build/demo/$$name-answer.png; \
	done
	@echo; echo "The overlays:"; ls -1 build/demo/*.png

##@ Working on it

.PHONY: venv
venv: $(VENV) ## Python environment of the tests, with the libtorch that the trainer links

.PHONY: trainer
trainer: $(VENV) ## Build target/release/anatomix-trainer, and its examples, which the tests call
	$(WITH_TORCH) $(CARGO) build --release -p anatomix-trainer --bins --examples

# NCCL's header is in a package of the wheel; these have the other headers that training on several GPUs needs when it is built.
CUDA_HEADERS := nvidia-cuda-crt==13.0.* nvidia-cuda-cccl==13.0.*

.PHONY: cuda-headers
cuda-headers: $(VENV) ## Install the headers that `make trainer-cuda` needs into .venv; CUDA_HOME and NCCL_HOME name others
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: $(CUDA_HEADERS)

.PHONY: trainer-cuda
trainer-cuda: cuda-headers ## Build the trainer for several GPUs; without their headers this is an error, while `make trainer` does without
	ANATOMIX_NCCL=1 $(MAKE) trainer

.PHONY: test
test: lint test-sdk test-trainer test-bindings test-python ## Everything that CI checks

.PHONY: test-sdk
test-sdk: build deps ## Rust tests of the SDK and of the phantoms; no libtorch needed
	$(CARGO) test --release --features $(FEATURES) -p anatomix -p anatomix-phantom

.PHONY: test-trainer
test-trainer: $(ORT) trainer ## Rust tests of the trainer
	$(WITH_TORCH) $(CARGO) test --release -p anatomix-trainer
	@# Answers must not change with int4 weights either, whose kernels depend on the number of rows.
	$(WITH_TORCH) $(TRAINER) export examples/reference/run --out build/int4 --decoder int4 --measure never
	ANATOMIX_TEST_BUNDLE=build/int4 $(CARGO) test --release --features $(FEATURES) -p anatomix --test look_up

# $(call debian,CHECK,PACKAGES,TESTS) installs Debian's packages as root unless the command CHECK succeeds, or says which tests are skipped.
define debian
	@if $(1); then exit; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "installing $(strip $(2))"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(2) > /dev/null && exit; \
	fi; \
	echo "$(strip $(2)) of Debian are missing and cannot be installed here: tests $(3) are skipped"
endef

# Tests on another kind of processor run on an emulated one. Root installs the emulator; where it is missing they are skipped, and say so.
.PHONY: qemu
qemu: ## Install QEMU's user mode (Debian's qemu-user) where it is missing and this is root
	$(call debian,command -v qemu-x86_64 > /dev/null || [ "$$(uname -m)" != x86_64 ],qemu-user,on an emulated processor)

# What receives DICOM reports checks them: dicom3tools, dcmtk, PixelMed, Orthanc.
.PHONY: dicom-tools
dicom-tools: ## Install the validators of DICOM reports (dicom3tools, dcmtk, libpixelmed-java, orthanc) where they are missing and this is root
	$(call debian,type dciodvfy dsrdump java Orthanc > /dev/null 2>&1 && [ -e /usr/share/java/pixelmed.jar ],dicom3tools dcmtk \
	  libpixelmed-java default-jre-headless orthanc,of DICOM reports by their receivers' tools)

# minisign signs what the SDK verifies, and verifies what the SDK signs.
.PHONY: minisign
minisign: ## Install minisign where it is missing and this is root
	$(call debian,command -v minisign > /dev/null,minisign,of signatures)

# Doxygen makes the pages of the C and C++ interfaces.
.PHONY: doxygen
doxygen: ## Install Doxygen where it is missing and this is root
	$(call debian,command -v doxygen > /dev/null,doxygen,of the headers' pages)

.PHONY: docs
docs: build python doxygen ## Pages of the interfaces in build/docs: rust (rustdoc), c (Doxygen), python (pdoc); a warning is an error
	@rm -rf build/docs target/doc && mkdir -p build/docs
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --no-deps --features $(FEATURES) -p anatomix --lib
	@cp -r target/doc build/docs/rust
	doxygen packaging/Doxyfile
	.venv-python/bin/python -W error::UserWarning -m pdoc anatomix -o build/docs/python
	@echo "build/docs/rust/anatomix/index.html build/docs/c/index.html build/docs/python/anatomix.html"

# METEOR takes synonyms from WordNet.
.PHONY: wordnet
wordnet: ## Install WordNet's database (Debian's wordnet-base) where it is missing and this is root
	$(call debian,[ -e /usr/share/wordnet/data.noun ],wordnet-base,of METEOR)

# The tests of memory run a program under it.
.PHONY: valgrind
valgrind: ## Install Valgrind where it is missing and this is root
	$(call debian,command -v valgrind > /dev/null,valgrind,under Valgrind)

.PHONY: test-python
test-python: build deps trainer qemu dicom-tools minisign doxygen wordnet ## Command line, bad input, C and C++, independent readers of the bundle, gradients
	PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest -rs tests

.PHONY: test-bindings
test-bindings: build deps python ## The Python package: against the program, its types, its examples
	.venv-python/bin/python -m pip check --disable-pip-version-check
	.venv-python/bin/python -m pytest -rs bindings/python

.PHONY: test-memory
test-memory: build deps valgrind $(VENV) ## Open, perceive, ask and close 1,000 times at constant memory, and once under Valgrind (minutes)
	.venv/bin/python tests/memory.py

.PHONY: test-4b
test-4b: build trainer ## Import, export in int4 and ask at MedGemma-4b's size with random weights: 20 GB of disk, half an hour
	$(WITH_TORCH) .venv/bin/python tests/scale.py build/scale

.PHONY: fuzz
fuzz: $(ORT) ## Damaged input for each parser, an hour each (FUZZ_SECONDS), or for one of them (TARGET=dicom)
	FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz/run.sh $(TARGET)

.PHONY: check-format
check-format:
	$(CARGO) fmt --all --check

.PHONY: lint
lint: check-format $(VENV) ## Format and clippy, warnings denied
	$(WITH_TORCH) $(CARGO) clippy --release --workspace --all-targets --features anatomix/cli,anatomix/capi -- -D warnings

.PHONY: reference
reference: $(ORT) trainer ## Train the reference bundle from its recipe; hours on a CPU, see examples/reference (DEVICE=cuda)
	$(WITH_TORCH) DEVICE=$(DEVICE) TRAINER=$(TRAINER) examples/reference/run.sh

.PHONY: evaluate
evaluate: $(ORT) trainer ## Measure the reference bundle on phantoms that it never saw, and on their mirror images
	@test -e build/evaluation-$(COUNT)/prepared/prepared.json || \
	  $(WITH_TORCH) $(TRAINER) phantom --out build/evaluation-$(COUNT) --count $(COUNT) --seed 1000000 --dicom-every 0
	$(WITH_TORCH) ORT_DYLIB_PATH=$(ORT) $(TRAINER) evaluate --bundle $(BUNDLE) --data build/evaluation-$(COUNT) --json > build/evaluation.json
	$(WITH_TORCH) ORT_DYLIB_PATH=$(ORT) $(TRAINER) evaluate --bundle $(BUNDLE) --data build/evaluation-$(COUNT) --flip --json > build/evaluation-flip.json
	@echo "build/evaluation.json"; cat build/evaluation.json; echo "build/evaluation-flip.json"; cat build/evaluation-flip.json

.PHONY: tables
tables: $(ORT) trainer ## The paper's tables for the reference bundle on phantoms, mirrored and without markers, too: build/tables-COUNT
	@for folder in evaluation evaluation-unmarked; do \
	  test -e build/$$folder-$(COUNT)/prepared/prepared.json || \
	    $(WITH_TORCH) $(TRAINER) phantom --out build/$$folder-$(COUNT) --count $(COUNT) --seed 1000000 --dicom-every 0 \
	      $$(test $$folder = evaluation || echo --without-markers); \
	done
	$(WITH_TORCH) ORT_DYLIB_PATH=$(ORT) $(TRAINER) tables --bundle $(BUNDLE) --data build/evaluation-$(COUNT) \
	  --without-markers build/evaluation-unmarked-$(COUNT) --out build/tables-$(COUNT)

.PHONY: bench
bench: build trainer $(BENCH) ## Times beside what a user would pick instead: a table, and build/bench.md (half an hour the first time)
	$(CARGO) build --release -p anatomix --example bench
	.venv-bench/bin/python bench/bench.py $(WORKS)

.PHONY: bench-training
bench-training: trainer ## Optimiser steps beside the same in PyTorch: time and memory, and build/bench-training.md (DEVICE=cuda for a GPU)
	DEVICE=$(DEVICE) .venv/bin/python bench/training.py $(WORKS)

.PHONY: abi
abi: $(VENV) ## Renew include/anatomix.abi, the list of what the C interface consists of; a break of docs/abi.md's promise is refused
	.venv/bin/python tests/abi.py

.PHONY: licences
licences: ## Renew both THIRD-PARTY.txt, the licences of everything linked (installs cargo-about first)
	$(CARGO) install --quiet --locked --root .deps/cargo-about --features cli cargo-about@$(ABOUT_VERSION)
	.deps/cargo-about/bin/cargo-about generate --offline --locked --manifest-path sdk/Cargo.toml --features $(FEATURES) \
	  --config packaging/about.toml packaging/about.hbs --output-file packaging/THIRD-PARTY.txt
	.deps/cargo-about/bin/cargo-about generate --offline --locked --manifest-path bindings/python/Cargo.toml \
	  --config packaging/about.toml packaging/about.hbs --output-file bindings/python/THIRD-PARTY.txt
	@# Some crates' files end their lines as Windows does.
	@sed -i 's/\r$$//' packaging/THIRD-PARTY.txt bindings/python/THIRD-PARTY.txt

.PHONY: test-chroot
test-chroot: dist ## Build and run the installed example in a Debian bookworm of its own (root, debootstrap, a Debian mirror)
	packaging/chroot.sh build/dist/$(DIST).tar.gz

.PHONY: check-aarch64
check-aarch64: ## Compile the SDK for 64-bit Arm as far as the linker (rustup's target aarch64-unknown-linux-gnu)
	$(CARGO) check --target aarch64-unknown-linux-gnu --features $(FEATURES) -p anatomix

.PHONY: lock
lock: ## Pin the requirements of tests and of the Python package anew, with hashes (needs uv)
	for folder in tests bindings/python; do \
	  uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	    --custom-compile-command 'make lock' $$folder/requirements.in --output-file $$folder/requirements.txt; \
	done

.PHONY: clean
clean: ## Remove what was built; data, runs, .deps and .venv stay
	rm -rf build target

# ---- files

# $(call fetch,REQUIREMENT,SHA256,FILES IN THE WHEEL,FOLDER) extracts files from the wheel with this hash. A file that is there is replaced,
# never written into: a program may have mapped it.
define fetch
	@test -n "$(2)" || { echo "error: no hash of $(1) is known for $(MACHINE); add its wheel's SHA-256 to the Makefile" >&2; exit 1; }
	@rm -rf $(4)/.fetch && mkdir -p $(4)/.fetch
	@echo '$(1) --hash=sha256:$(2)' > $(4)/.fetch/requirement.txt
	@echo "fetching $(1)"
	@$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
	  --python-version 3.11 --dest $(4)/.fetch -r $(4)/.fetch/requirement.txt
	@cd $(4)/.fetch && $(PYTHON) -m zipfile -e *.whl . && mv $(3) ..
	@rm -rf $(4)/.fetch
endef

# One call makes all three files (`&:`).
ORT_FILES := $(addprefix $(dir $(ORT)),libonnxruntime.so.$(ORT_VERSION) LICENSE ThirdPartyNotices.txt)
$(ORT_FILES) &:
	$(call fetch,onnxruntime==$(ORT_VERSION),$(ORT_SHA256),onnxruntime/capi/libonnxruntime.so.$(ORT_VERSION) onnxruntime/LICENSE \
	  onnxruntime/ThirdPartyNotices.txt,.deps/onnxruntime)

$(ORT): $(ORT_FILES)
	@ln -sfn $(<F) $@

$(RG1):
	$(call fetch,pydicom-data==$(DATA_VERSION),$(DATA_SHA256),data_store/data/$(@F),$(@D))

$(VENV): tests/requirements.txt
	$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("error: Python 3.11 is needed; make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt
	@touch $@

$(VENV_PYTHON): bindings/python/requirements.txt
	$(PYTHON) -m venv .venv-python
	.venv-python/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bindings/python/requirements.txt
	@touch $@

$(BENCH): bench/requirements.txt bench/llama.txt $(VENV)
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r bench/requirements.txt
	echo '$(CURDIR)/.venv/lib/python3.11/site-packages' > .venv-bench/lib/python3.11/site-packages/tests.pth
	@echo "building llama.cpp"
	PATH="$(CURDIR)/.venv/bin:$$PATH" CMAKE_GENERATOR=Ninja CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" \
	  .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --no-binary llama-cpp-python --require-hashes -r bench/llama.txt
	@touch $@

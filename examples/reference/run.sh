#!/bin/sh
# Trains the reference bundle from its recipe: `make reference`.
#
# The script can be stopped and started again at any time: steps that are done are skipped, and an interrupted step resumes at its last
# checkpoint. DEVICE=cuda trains on a GPU; THREADS limits the number of threads.
set -eu
cd "$(dirname "$0")/../.."

trainer=${TRAINER:-target/release/anatomix-trainer}
recipe=recipes/reference.toml
data=data/phantoms
run=runs/reference
bundle=examples/reference-bundle
# Number of phantoms; one in 20 is for validation and one in 20 for test.
count=${PHANTOMS:-11000}

train() {
    "$trainer" train "$1" --config "$recipe" --device "${DEVICE:-cpu}" ${THREADS:+--threads "$THREADS"} --resume
}

# A folder that is prepared for training is complete, because that is done last.
[ -e "$data/prepared/prepared.json" ] || "$trainer" phantom --out "$data" --count "$count" --seed 0

# A tokenizer and a small sentence encoder, which are then frozen; the paper uses pretrained ones.
[ -e "$run/text.safetensors" ] || train text
# Step 1: the Anatomy Perception Module.
train apm
# A language model, trained on the annotations; the paper uses a pretrained one.
train language
# Step 2: the projectors. Step 3: adapters on all nine tasks.
train align
train instruct

# tests/test_processors.py opens the bundle on the first of these kinds of processors, an emulated one; the second was the machine's own.
"$trainer" export "$run" --out "$bundle" --name anatomix-reference --checked-on "x86-64 AVX2" --checked-on "x86-64 AVX-512 VNNI"

#!/bin/sh
# Makes examples/reference-bundle from nothing but the recipe: `make reference`.
#
# It can be stopped and started again at any point: steps that are done are left as they are, a step that was cut off goes
# on from its last checkpoint. DEVICE=cuda trains on a GPU, THREADS limits the cores.
set -eu
cd "$(dirname "$0")/../.."

trainer=${TRAINER:-target/release/anatomix-trainer}
recipe=examples/reference/recipe.toml
data=data/phantoms
run=runs/reference
bundle=examples/reference-bundle
# How many phantoms are drawn; every twentieth each is set aside for validation and test.
count=${PHANTOMS:-11000}

train() {
    "$trainer" train "$1" --config "$recipe" --device "${DEVICE:-cpu}" ${THREADS:+--threads "$THREADS"} --resume
}

# The tables are written last, so that a folder that has them is complete.
[ -e "$data/mimic-cxr-2.0.0-split.csv" ] || "$trainer" phantom --out "$data" --count "$count" --seed 0

# What the paper takes from others, made small: a tokenizer and a sentence encoder, which are then frozen.
[ -e "$run/text.safetensors" ] || train text
# Step 1: the Anatomy Perception Module.
train apm
# What the paper takes from others: a language model, trained here on what annotations say.
train language
# Step 2: the projectors. Step 3: adapters on all nine tasks.
train align
train instruct

"$trainer" export "$run" --out "$bundle" --name anatomix-reference

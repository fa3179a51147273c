"""Attention inputs of `decoder.onnx`."""

import numpy as np


def attention(past, count, sizes):
    """Positions and attention biases of `count` tokens after `past` tokens; `sizes` are those of the manifest."""
    positions = np.arange(past + count)
    bias = np.zeros((1, 1, count, past + count), np.float32)
    inputs = {"position_ids": positions[None, past:], "full_attention_bias": bias}
    if window := sizes.get("sliding_window"):
        distance = positions[past:, None] - positions
        inputs["sliding_attention_bias"] = np.where(distance >= window, np.float32(-1e30), bias)
    return inputs

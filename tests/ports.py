"""What readers of `decoder.onnx` give it besides tokens."""

import numpy as np


def attention(past, count, sizes):
    """Positions of `count` tokens behind `past` others, and what layers see of all of them; `sizes` are the manifest's."""
    places = np.arange(past + count)
    bias = np.zeros((1, 1, count, past + count), np.float32)
    inputs = {"position_ids": places[None, past:], "full_attention_bias": bias}
    if window := sizes.get("sliding_window"):
        distance = places[past:, None] - places
        inputs["sliding_attention_bias"] = np.where(distance >= window, np.float32(-1e30), bias)
    return inputs

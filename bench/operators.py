"""Profiles a perception module: `operators.py GRAPH` prints the milliseconds of each operator in a run of ONNX Runtime. For convolutions in
fp32, whose weights' shapes are in the profile, it also prints the number of multiply-adds."""

import json
import sys
import tempfile
from collections import Counter
from math import prod

import numpy as np
import onnxruntime

from sides import THREADS

RUNS = 8


def shape(described):
    return next(iter(described.values()))


def main(graph):
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.enable_profiling, options.profile_file_prefix = THREADS, True, f"{folder}/profile"
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        side = session.get_inputs()[0].shape[-1]
        image = np.random.default_rng(0).random((1, 1, side, side), np.float32)
        for _ in range(RUNS):
            session.run(None, {"image": image})
        with open(session.end_profiling()) as file:
            events = [e for e in json.load(file) if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    milliseconds, multiplied = Counter(), 0
    for event in events:
        arguments = event["args"]
        milliseconds[arguments["op_name"]] += event["dur"] / 1e3 / RUNS
        if arguments["op_name"] == "Conv":
            multiplied += prod(shape(arguments["output_type_shape"][0])) * prod(shape(arguments["input_type_shape"][1])[1:]) / RUNS
    total = sum(milliseconds.values())
    for operator, time in milliseconds.most_common(12):
        print(f"{operator:24}{time:9.2f} ms{100 * time / total:6.1f} %")
    print(f"{'all':24}{total:9.2f} ms")
    if multiplied:
        print(f"convolutions: {multiplied / 1e9:.1f} G multiply-adds, {multiplied / milliseconds['Conv'] / 1e6:.0f} G a second")


if __name__ == "__main__":
    main(sys.argv[1])

"""Run by the Python of an environment with onnxruntime-webgpu: MODEL.onnx INPUTS.npy OUTPUTS.npy, one picture after the
other; prints the provider that took the graph."""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime

model, given, answers = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # all of it on the adapter, or an error
session = onnxruntime.InferenceSession(model, options, providers=["WebGpuExecutionProvider"])
np.save(answers, np.stack([session.run(None, {"pixel_values": each[None]})[0][0] for each in np.load(given)]))
print(session.get_providers()[0], onnxruntime.__version__)

"""What precisions are held to, wherever they run."""

from __future__ import annotations

from vitexport.contract import Precision

FP32 = Precision(
    "fp32",
    1e-4,
    "1,700 float32 roundings (2^-24) that all add up; a ViT's are a few hundred and mostly cancel: measured 1e-6",
)

FP16 = Precision(
    "fp16",
    8e-3,
    "float16 rounds 2^13 times as coarsely as float32, whose rounding moves these networks by 1e-6 (42 dB SNR)",
    metric="noise",
)

#: Noise of half the answer's power. How much of it is worth the bytes is the user's to say, and the report's to show.
LARGEST_LOSS = 0.707

#: Of all weights, the share that must be in the type asked for: tables of positions, biases and norms may stay float.
LEAST_SHARE = 0.8


def fewer_bits(name: str, what: str) -> Precision:
    return Precision(name, LARGEST_LOSS, f"{what}: at most half the answer's power", metric="loss")


W8 = fewer_bits("w8", "int8 weights, float arithmetic")
W8_DYN = fewer_bits("w8-dyn", "int8 weights, activations quantised on the fly")
W8A8 = fewer_bits("w8a8", "int8 weights and calibrated int8 activations of fully-connected layers and convolutions")

#: For a GPU that computes float16, from the same weights as ``w4``.
W4_FP16 = fewer_bits("w4-fp16", "int4 weights in blocks of 32, float16 arithmetic")

#: Of ONNX files, wherever they run.
FEWER_ONNX_BITS = (W8, W8_DYN, W8A8, fewer_bits("w4", "int4 weights in blocks of 32, float arithmetic"))

"""What float precisions are held to, wherever they run."""

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

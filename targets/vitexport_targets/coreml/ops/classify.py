"""A classifier's last step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vitexport_targets.coreml.ops.signature import Apply, Labels, Tensor, Text


def classify(probabilities: Tensor, classes: Labels) -> tuple[Text, Tensor]:
    """The likeliest label, and the numbers in the order of ``classes``, which Core ML hands out as a dictionary."""
    flat = probabilities.reshape(-1)
    if len(classes) != flat.numel():
        raise ValueError(f"has {len(classes)} labels for {flat.numel()} probabilities")
    return np.array(classes[int(flat.argmax())]), flat


OPS: Mapping[str, Apply] = {"classify": classify}

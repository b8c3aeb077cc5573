"""The line of its proof that a package carries with it, for whoever opens it without its bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitexport import parity
from vitexport.contract import SourceModel
from vitexport.errors import RuntimeUnavailable
from vitexport.preprocess import preprocess
from vitexport_targets.coreml import inputs, names
from vitexport_targets.coreml.evaluator import Arithmetic, Evaluator
from vitexport_targets.coreml.package import read


@dataclass(frozen=True)
class FirstAnswer:
    """How a written package answers the first picture, evaluated, beside PyTorch."""

    picture: str
    arithmetic: Arithmetic
    snr_db: float
    """NaN where it could not be evaluated."""
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return json.dumps({"verdict": "not run", "reason": self.reason})
        said = {"picture": self.picture, "arithmetic": self.arithmetic, "snr_db": round(self.snr_db, 1)}
        return json.dumps({**said, "device": "not run"})


def first_answer(package: Path, source: SourceModel, arithmetic: Arithmetic) -> FirstAnswer:
    found = read(package)
    function = names.function(found, source.size)
    probe = source.probes[0]
    pixel_values = preprocess(probe.image, source.preprocessing)
    fed = inputs.feed(found, function, pixel_values, source.preprocessing)
    try:
        answer = Evaluator(found, function, arithmetic=arithmetic).run(fed)
    except RuntimeUnavailable as reason:
        return FirstAnswer(probe.name, arithmetic, float("nan"), str(reason))
    true = source.forward(pixel_values)
    worst = np.min([parity.snr_db(answer[o.name], true[o.name], o.meaning) for o in source.outputs])
    return FirstAnswer(probe.name, arithmetic, float(worst))

"""A bundle's file in LiteRT.js: what a web page that loads it will see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from vitexport.contract import Bundle, Session
from vitexport.errors import BadRequest, LoweringFailed, MissingToolchain, RuntimeUnavailable
from vitexport_targets.tflite.litertjs import open_in_litertjs
from vitexport_targets.tflite.signature import collected, entrance, fed
from vitexport_targets.tflite.trial import held, tried

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors

#: What LiteRT's GPU delegate takes of every network. Dynamic int8 (https://github.com/google-ai-edge/LiteRT/issues/9481)
#: and what else is quantised it refuses of some (:mod:`.gpu_quantised`); that is no fault of the file, which runs
#: everywhere else.
_ON_GPU = ("fp32", "fp16")

#: Where a linear layer has a bias, it refuses these ("Unable to parse bc coord for BATCH axis") or takes them and
#: answers nonsense (a ViT's SNR is -0.7 dB; LiteRT.js 2.5.3, 659 of 759 operations on the GPU).
#: tests/test_tflite_litertjs.py notices when it no longer does.
WRONG_ON_GPU = ("w8-dyn", "w8a8")


def open_on_the_web(bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
    """Raises ``RuntimeUnavailable`` where there is no browser, no npm package or no adapter: the file needs none."""
    if taps:
        raise BadRequest("LiteRT.js shows no intermediate values. Ask the interpreter for them.")
    if provider == "webgpu" and precision in WRONG_ON_GPU:
        raise RuntimeUnavailable(f"LiteRT.js's GPU delegate computes {precision} of a ViT wrongly, and does not say so")
    path, rung = bundle.path(bundle.variant(precision).files[0]), bundle.rung
    way = entrance(bundle, path.name, held(path))
    tried(path)

    def feed(pixel_values: Tensor) -> dict[str, Tensor]:
        return {way.input: fed(pixel_values, way.shape, way.dtype, rung.preprocessing)}

    def collect(raw: Tensors) -> dict[str, Tensor]:
        return collected(raw, rung)

    try:
        return open_in_litertjs(path, way.signature, cast(Literal["wasm", "webgpu"], provider), feed, collect)
    except MissingToolchain as missing:
        raise RuntimeUnavailable(str(missing).rstrip(".")) from missing
    except LoweringFailed as refusal:
        if provider == "webgpu" and precision not in _ON_GPU:
            raise RuntimeUnavailable(str(refusal).rstrip(".")) from refusal
        raise

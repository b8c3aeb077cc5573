"""Clips: their positions, what a video network eats, and its export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import headless
import vitexport
import web_bundles
from vitexport import capture, models, photos, torchvision_schemas
from vitexport.contract import Clip, ExportRequest, Preprocessing, Site, Size
from vitexport.errors import BadRequest
from vitexport.models import checkpoint, hub_presets
from vitexport.posembed import in_video
from vitexport.preprocess import preprocess
from vitexport.serving import serve

if TYPE_CHECKING:
    from collections.abc import Callable

torchvision_schemas.declare()
transformers = pytest.importorskip("transformers")

#: What a rule may be off its owner's: both are float32 and of the same formula.
SAME = 1e-6

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "num_labels": 5,
}
NATIVE, FRAMES = Size(64, 64), 8
CONFIGS = {
    "videomae": lambda **more: transformers.VideoMAEConfig(**{**SMALL, "num_frames": FRAMES, **more}),
    "vivit": lambda **more: transformers.VivitConfig(
        **{**SMALL, "num_frames": FRAMES, "tubelet_size": [2, 16, 16], **more}
    ),
    "timesformer": lambda **more: transformers.TimesformerConfig(**{**SMALL, "num_frames": FRAMES, **more}),
}
CLASSES = {"videomae": "VideoMAE", "vivit": "Vivit", "timesformer": "Timesformer"}

#: Up, down, not square either way, and the native grid's own tokens in another shape.
SIZES = [Size(96, 96), Size(48, 48), Size(64, 112), Size(96, 48), Size(32, 128), Size(144, 80)]
#: transformers adds TimeSformer's table as it is wherever its length fits, as at 32x128, so it says nothing there.
TIMESFORMERS_SIZES = [*SIZES[:4], SIZES[5], Size(80, 176)]

STEPS = [8, 4, 12, 16]


def built(kind: str, **more: Any) -> Any:
    """``FooForVideoClassification`` with every parameter drawn: their position tables start at zero."""
    torch.manual_seed(0)
    module = getattr(transformers, f"{CLASSES[kind]}ForVideoClassification")(CONFIGS[kind](**more)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.2)
    return module


def embeddings(module: Any) -> Any:
    return getattr(module, module.base_model_prefix).embeddings


def clip_of(size: Size, frames: int) -> torch.Tensor:
    return torch.rand((1, frames, 3, size.height, size.width), generator=torch.Generator().manual_seed(1))


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


# ---------------------------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize("frames", STEPS)
@pytest.mark.parametrize("size", TIMESFORMERS_SIZES, ids=str)
def test_timesformer_is_taken_to_a_size_as_transformers_does(size: Size, frames: int) -> None:
    """transformers resamples both tables in ``forward``."""
    module, clip = built("timesformer"), clip_of(size, frames)
    own = embeddings(module)
    with torch.no_grad():
        theirs = own(clip)
        in_video.fit(module, size, frames)
        assert off(own(clip), theirs) <= SAME


@pytest.mark.parametrize("frames", STEPS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_videomae_has_the_sines_that_transformers_builds_it_with(size: Size, frames: int) -> None:
    module = built("videomae")
    there = built("videomae", image_size=[size.height, size.width], num_frames=frames)
    fitted = in_video.fit(module, size, frames)
    assert fitted.rule == ("" if (size, frames) == (NATIVE, FRAMES) else "computed")
    assert off(embeddings(module).position_embeddings, embeddings(there).position_embeddings) == 0


def internvideo2(table: torch.Tensor, kept: int, frames: tuple[int, int], size: Size) -> torch.Tensor:
    """OpenGVLab/InternVideo, InternVideo2's pos_embed.py: a line in time, then bicubic in each step."""
    dim, (old_steps, steps) = table.shape[-1], frames
    tokens = table[:, kept:].view(old_steps, -1, dim).permute(1, 2, 0)
    tokens = F.interpolate(tokens, size=steps, mode="linear").permute(2, 0, 1)
    side = int(tokens.shape[1] ** 0.5)
    tokens = tokens.reshape(steps, side, side, dim).permute(0, 3, 1, 2)
    tokens = F.interpolate(tokens, size=(size.height // 16, size.width // 16), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :kept], tokens.permute(0, 2, 3, 1).reshape(1, -1, dim)], dim=1)


@pytest.mark.parametrize("frames", STEPS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_vivit_and_videomae_on_request_are_resampled_as_internvideo2_is(size: Size, frames: int) -> None:
    vivit, videomae = built("vivit"), built("videomae")
    tables = [embeddings(module).position_embeddings.detach() for module in (vivit, videomae)]
    assert in_video.fit(vivit, size, frames).rule == ("hf" if frames == FRAMES else "hf+linear")
    in_video.fit(videomae, size, frames, "hf")
    for module, table, kept in zip((vivit, videomae), tables, (1, 0), strict=True):
        expected = internvideo2(table, kept, (FRAMES // 2, frames // 2), size)
        assert off(embeddings(module).position_embeddings, expected) <= SAME


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_network_answers_at_its_new_size_as_if_built_there(kind: str) -> None:
    """Everything but the tables agrees with transformers' own module of that size (of a square: it knows no other)."""
    size, frames = Size(96, 96), 12
    module = built(kind)
    there = built(kind, image_size=96, num_frames=frames)
    in_video.fit(module, size, frames)
    there.load_state_dict(module.state_dict(), strict=True)
    with torch.no_grad():
        clip = clip_of(size, frames)
        assert off(module(clip).logits, there(clip).logits) <= SAME


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_rule_for_another_kind_of_table_is_refused(kind: str) -> None:
    with pytest.raises(BadRequest, match="'swin' is for relative tables, and this model learns absolute and temporal"):
        in_video.fit(built(kind), NATIVE, FRAMES, "swin")


# ---------------------------------------------------------------------------------------------------- what goes in


def test_a_pan_moves_evenly_from_corner_to_corner() -> None:
    image = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)
    clip = photos.pan(image, 6)
    assert clip.shape == (6, 30, 45, 3)
    assert (clip[0] == image[:30, :45]).all()
    assert (clip[2] == image[4:34, 6:51]).all()
    assert (clip[-1] == image[10:, 15:]).all()


@pytest.mark.parametrize("layout", ["TCHW", "CTHW"])
def test_a_clip_is_its_frames_in_the_layout_it_declares(layout: Any) -> None:
    how = Preprocessing(Size(32, 48), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), clip=Clip(3, layout=layout))
    frames = photos.pan(photos.probes(None)[0].image, 3)
    single = Preprocessing(how.size, how.mean, how.std)
    clip = preprocess(frames, how)
    assert clip.shape == (1, *how.input_shape)
    for t, frame in enumerate(frames):
        at = clip[0, t] if layout == "TCHW" else clip[0, :, t]
        assert (at == preprocess(frame, single)[0]).all()


@pytest.mark.parametrize(
    "processor",
    [
        lambda: transformers.VideoMAEImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
        lambda: transformers.VivitImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
        lambda: transformers.VivitImageProcessor(
            size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, do_normalize=False, offset=False
        ),
    ],
    ids=["videomae", "vivit", "vivit-plain"],
)
def test_a_clips_pixels_are_those_of_transformers_own_processor(processor: Callable[[], Any], tmp_path: Path) -> None:
    made = processor()
    made.save_pretrained(tmp_path)
    files = checkpoint.Files("x", tmp_path, "x", "unknown")
    frames = photos.pan(photos.probes(None)[0].image, 4)
    how = checkpoint.read_preprocessing(files, None)
    ours = preprocess(frames, Preprocessing(**{**vars(how), "clip": Clip(4)}))
    theirs = made(list(frames), return_tensors="np")["pixel_values"]
    # transformers rescales in float64; ViViT's two offsets are one here: a rounding each, of values up to 3.
    assert np.abs(ours - theirs).max() <= 2e-6


# ------------------------------------------------------------------------------------------------------------ export


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Descriptions without weights, as ``--weights random`` wants them."""
    made = {}
    for kind, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp(kind)
        config(architectures=[f"{CLASSES[kind]}ForVideoClassification"]).save_pretrained(folder)
        crop = {"height": 64, "width": 64}
        processor = transformers.VivitImageProcessor if kind == "vivit" else transformers.VideoMAEImageProcessor
        processor(size={"shortest_edge": 64}, crop_size=crop).save_pretrained(folder)
        made[kind] = str(folder)
    return made


#: One of them each time, all of them in ``make test-all``.
EACH_TIME = "videomae"


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k == EACH_TIME else pytest.mark.slow) for k in CONFIGS])
def test_a_video_network_is_exported_and_proven_on_clips(kind: str, folders: dict[str, str], tmp_path: Path) -> None:
    request = ExportRequest(
        model=folders[kind],
        targets=("onnx",),
        sizes=(NATIVE, Size(48, 80)),
        frames=12,
        frame_stride=3,
        weights="random",
        dynamic=("batch",),
        out=str(tmp_path / "out"),
    )
    report = vitexport.export(request)
    assert [result.verdict for result in report.results] == ["passed", "passed"]
    manifest = json.loads((tmp_path / "out/onnx/manifest.json").read_text())
    rungs = manifest["rungs"]
    assert [rung["input_shape"] for rung in rungs] == [[0, 12, 3, 64, 64], [0, 12, 3, 48, 80]]
    assert rungs[0]["preprocessing"]["clip"] == {"frames": 12, "stride": 3, "layout": "TCHW"}
    expected = {"videomae": "computed", "vivit": "linear", "timesformer": "nearest"}[kind]
    assert rungs[0]["pos_embed_rule"] == expected
    assert json.loads((tmp_path / "out/onnx/config.json").read_text())["num_frames"] == 12


def test_the_order_of_a_clips_frames_matters_to_its_exam(folders: dict[str, str]) -> None:
    """An artifact that lost the time axis would not pass."""
    request = ExportRequest(model=folders["videomae"], weights="random")
    source = capture.capture(models.build(request), "videomae", photos.probes(None))
    clip = preprocess(source.probes[0].image, source.preprocessing)
    forwards, backwards = (source.forward(np.ascontiguousarray(c))["logits"] for c in (clip, clip[:, ::-1]))
    assert np.abs(forwards - backwards).max() > 1e-2 * np.abs(forwards).max()


def test_frames_that_tubelets_do_not_divide_are_refused_with_the_nearest(folders: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match=r"5 frames are not a multiple of .*'s tubelets of 2\. Try 4 or 6\."):
        models.build(ExportRequest(model=folders["videomae"], frames=5, weights="random"))


@pytest.mark.parametrize("flag", ["frames", "frame_stride"])
@pytest.mark.parametrize("model", ["vit_tiny", "selfie", "tests/models.py:tiny"])
def test_frames_say_nothing_to_a_network_of_pictures(model: str, flag: str) -> None:
    with pytest.raises(BadRequest, match=f"takes single pictures, so --{flag.replace('_', '-')} says nothing to it"):
        models.build(ExportRequest(model=model, weights="random", **{flag: 4}))  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("count", [0, -2, 1025])
def test_a_count_of_frames_is_checked_before_anything_else(count: int, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=f"--frames {count} is not a whole number from 1 to 1024"):
        vitexport.export(ExportRequest(model="videomae_small", frames=count, out=str(tmp_path / "out")))


@pytest.mark.parametrize("preset", ["videomae_small", "timesformer_base", "vivit_base"])
def test_a_preset_describes_a_network_that_transformers_builds(preset: str) -> None:
    files = checkpoint.Files(preset, hub_presets.PRESETS[preset].description, preset, "unknown")
    config = checkpoint.read_config(files)
    assert config.num_labels == 400
    assert hasattr(transformers, config.architectures[0])
    assert checkpoint.read_preprocessing(files, None).size == Size(224, 224)


@pytest.mark.slow
def test_videomae_small_is_exact_whole(tmp_path: Path) -> None:
    request = ExportRequest(model="videomae_small", targets=("onnx",), weights="random", out=str(tmp_path / "out"))
    (result,) = vitexport.export(request).results
    assert result.verdict == "passed"
    assert result.parity.drift is not None
    assert result.parity.drift <= 1e-4


# ------------------------------------------------------------------------------------------------------- the browser

_SAME_CLIP = """async ([strip, still, how]) => {
    const { cut, pan, preprocessClip } = await import('/vitexport/clip.js');
    const { decode } = await import('/vitexport/preprocess.js');
    const load = async (path) => decode(await (await fetch(path)).blob());
    const digest = async (frames) => {
        const hash = await crypto.subtle.digest('SHA-256', preprocessClip(frames, how));
        return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    };
    const frames = how.clip.frames;
    return [await digest(cut(await load(strip), frames)), await digest(pan(await load(still), frames))];
}"""


@pytest.mark.browser
def test_a_clip_network_passes_its_own_exam_in_the_browser(folders: dict[str, str], tmp_path: Path) -> None:
    request = ExportRequest(model=folders["vivit"], precisions=("fp32",), weights="random")
    source = capture.capture(models.build(request), "vivit", photos.probes(None))
    (bundle,) = web_bundles.filled(tmp_path, request, source)
    with serve(Site(bundle.directory)) as url, headless.page() as page:
        assert web_bundles.verdict(page, url)[0] == "passed"
        page.locator("#status", has_text="in the network").wait_for()
        assert "8 frames of 64 × 64 pixels" in page.locator("#summary").inner_text()
        assert page.locator("#photo-caption").inner_text() == "astronaut, the first of 8 frames"
        page.set_input_files("#file", bundle.path(bundle.rung.golden[1].photo))
        page.locator("#photo-caption", has_text="1.png, the first of 8 frames").wait_for()


@pytest.mark.browser
@pytest.mark.parametrize("layout", ["TCHW", "CTHW"])
def test_the_browser_cuts_pans_and_lays_out_a_clip_as_python_does(layout: Any, tmp_path: Path) -> None:
    import hashlib

    import msgspec
    from PIL import Image

    from vitexport_targets.webgpu.generate_types import RUNTIME

    # Without mean and std there is no division to round differently: the bytes are the same.
    how = Preprocessing(Size(32, 48), interpolation="bicubic", clip=Clip(5, layout=layout))
    still = photos.probes(None)[1].image
    frames = photos.pan(still, 5)
    files = {}
    for name, image in (("still", still), ("strip", frames.reshape(-1, *frames.shape[2:]))):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        files[f"/{name}.png"] = (tmp_path / f"{name}.png").read_bytes()
    site = Site(RUNTIME, pages={"/blank.html": b"<!doctype html>", **files})
    with serve(site) as url, headless.page() as page:
        page.goto(f"{url}blank.html")
        made = page.evaluate(_SAME_CLIP, ["/strip.png", "/still.png", msgspec.to_builtins(how)])
    expected = hashlib.sha256(preprocess(frames, how).tobytes()).hexdigest()
    assert made == [expected, expected]

"""Checkpoints in transformers' layout: ``hf:ORG/NAME[@revision]``, ``hf:./folder``, or a folder with a config.json."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitexport.contract import Clip, ExportRequest, Meaning, Preprocessing, Size, Task
from vitexport.errors import BadRequest, MissingToolchain, first_line
from vitexport.models import hub_presets, licences, lively, sizes, video, weights
from vitexport.models.channel_order import take_rgb
from vitexport.models.network import Network
from vitexport.posembed import Fitted, in_transformers, in_video

_PREFIX = "hf:"


@dataclass(frozen=True)
class _Kind:
    """How one of our tasks is called on the hub, and what its output is."""

    pipeline: str
    """As ``pipeline_tag`` and Optimum have it."""
    suffix: str
    """Of the class names in a config's ``architectures`` that were trained for it."""
    output_name: str
    meaning: Meaning


#: What Optimum calls a task of some architectures: MobileViT's DeepLab is for ``image-segmentation``.
_ALSO: dict[Task, str] = {"segment": "image-segmentation"}

#: SegFormer's and most semantic segmenters' logits come at a quarter of the input's size. They are exported as they
#: are: upsampling belongs to whoever draws them, and costs a full-size tensor per class (150 for ADE20K). So does the
#: softmax that makes a mask of one class: a shader that reads each score once is the cheapest way, see README.md.
_KINDS: dict[Task, _Kind] = {
    "classify": _Kind("image-classification", "ForImageClassification", "logits", "logits"),
    "segment": _Kind("semantic-segmentation", "ForSemanticSegmentation", "logits", "segmentation"),
    "features": _Kind("feature-extraction", "Model", "last_hidden_state", "features"),
}
_VIDEO_KINDS: dict[Task, _Kind] = {
    "classify": _Kind("video-classification", "ForVideoClassification", "logits", "logits"),
    "features": _KINDS["features"],
}


#: Said where a segmenter's image processor cuts a picture's edges off: what is not seen has no mask.
_WHOLE = (
    "'{model}' was evaluated on centre crops. Its mask has to cover the whole picture, so that pictures are squashed "
    "to its size instead."
)


class Hub:
    name = "hub"
    honours = frozenset({"pos_embed_rule"}) | video.OPTIONS
    presets: Mapping[str, str] = {name: preset.summary for name, preset in hub_presets.PRESETS.items()}

    def claims(self, model: str) -> bool:
        return model in self.presets or model.startswith(_PREFIX) or (Path(model) / "config.json").is_file()

    def build(self, request: ExportRequest) -> Network:
        """The checkpoint for the task it was trained for, or ``--task``. Code in the repository is never run."""
        needs_optimum()
        from vitexport.models import checkpoint

        files = locate(request, with_weights=request.weights == weights.PRETRAINED)
        config = checkpoint.read_config(files)
        task = _task(request, config)
        kind = _kinds(config)[task]
        clip = video.clip(config, request)
        if clip is None:
            _check_known(request.model, config, kind, _ALSO.get(task))
        own = checkpoint.read_preprocessing(files, None).size
        size, notes = sizes.settle(request, request.size or own, *checkpoint.size_step(config))
        # Weights first, at the size they belong to: rungs of a ladder share all but positions.
        module = _module(request, files, config, kind)
        origin, licence = files.origin, files.licence
        labels = tuple(config.id2label[i] for i in sorted(config.id2label)) if task != "features" else ()
        if request.weights == weights.RANDOM:
            home = _at_home(files, config)
            lively.enliven_on_photos(module, home, request.seed)
            if task == "segment":
                lively.show_people(module, home, labels)
            origin, licence = f"random (seed {request.seed})", licences.RANDOM
        elif request.weights != weights.PRETRAINED:
            origin, licence = Path(request.weights).name, licences.UNKNOWN
        if request.weights != weights.RANDOM and checkpoint.takes_bgr(checkpoint.read_processor(files)):
            take_rgb(module, request.model)
        fitted = fit(module, size, clip, request)
        preprocessing = replace(checkpoint.read_preprocessing(files, size), clip=clip)
        if task == "segment" and preprocessing.resize is not None:
            preprocessing = replace(preprocessing, fit="squash", resize=None)
            notes = (*notes, _WHOLE.format(model=request.model))
        return Network(
            module=module,
            preprocessing=preprocessing,
            task=task,
            output_name=kind.output_name,
            meaning=kind.meaning,
            labels=labels,
            origin=origin,
            licence=licence,
            hub_config=_plain(config, size, clip),
            pos_embed_rule=fitted.rule,
            pos_embed_source=fitted.source,
            notes=notes,
        )


FAMILY = Hub()

#: What transformers imports where it is installed (LiteRT's converter brings torchao) complains of kernels for GPUs
#: that are not here, and of itself to torch's maintainers.
_TALKATIVE = ("torchao", "torch.utils._pytree")


def needs_optimum() -> None:
    """Make Optimum and transformers importable. Raises ``MissingToolchain``."""
    from vitexport import torchvision_schemas

    torchvision_schemas.declare()
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import optimum.exporters.onnx.model_configs  # noqa: F401  registers what Optimum knows
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingToolchain(
            f"Hugging Face checkpoints need '{error.name}', which is not installed. Run: pip install 'vitexport[hub]'"
        ) from error


def locate(request: ExportRequest, with_weights: bool) -> Any:
    """The checkpoint's :class:`.checkpoint.Files`. A preset's description travels with vitexport, so that only its
    weights need the hub."""
    from vitexport.models import checkpoint

    preset = hub_presets.PRESETS.get(request.model)
    if preset is not None and not with_weights:
        return checkpoint.Files(request.model, preset.description, preset.repository, licences.UNKNOWN)
    if not (place := preset.repository if preset else request.model.removeprefix(_PREFIX)):
        raise BadRequest(f"'{request.model}' names no checkpoint. Write hf:ORG/NAME, or hf: and a folder.")
    return checkpoint.locate(place, with_weights=with_weights)


def fit(module: Any, size: Size, clip: Clip | None, request: ExportRequest) -> Fitted:
    """Take what ``module`` has learned per position to ``size`` and ``clip``, in place."""
    if clip is None:
        return in_transformers.fit(module, size, request.model, request.pos_embed_rule)
    return in_video.fit(module, size, clip.frames, request.pos_embed_rule)


def _at_home(files: Any, config: Any) -> Preprocessing:
    """What the network was trained on."""
    from vitexport.models import checkpoint

    home = checkpoint.read_preprocessing(files, checkpoint.native_size(config))
    return replace(home, clip=Clip(int(config.num_frames))) if video.takes_clips(config) else home


def _kinds(config: Any) -> dict[Task, _Kind]:
    return _VIDEO_KINDS if video.takes_clips(config) else _KINDS


def _task(request: ExportRequest, config: Any) -> Task:
    """What was asked for, or what the checkpoint's class was trained for; a backbone is good for its features."""
    trained, kinds = (config.architectures or ["Model"])[0], _kinds(config)
    if request.task is None:
        return next((task for task, kind in kinds.items() if trained.endswith(kind.suffix)), "features")
    if request.task != "features" and not (request.task in kinds and trained.endswith(kinds[request.task].suffix)):
        raise BadRequest(
            f"'{request.model}' is a {trained}, which was not trained to {request.task}: its head would be random. "
            "Leave --task out, or use --task features."
        )
    return request.task


def _check_known(model: str, config: Any, kind: _Kind, also: str | None) -> None:
    from optimum.exporters.tasks import TasksManager

    try:
        known = TasksManager.get_supported_tasks_for_model_type(config.model_type, "onnx", library_name="transformers")
    except KeyError as error:
        raise BadRequest(
            f"'{model}' is of type '{config.model_type}', which Optimum does not export. For a timm checkpoint name "
            "the timm model itself; for anything else, write a factory (path/to/file.py:factory)."
        ) from error
    if kind.pipeline not in known and also not in known:
        raise BadRequest(
            f"Optimum does not export '{config.model_type}' for {kind.pipeline}. It knows: {', '.join(sorted(known))}."
        )


def _module(request: ExportRequest, files: Any, config: Any, kind: _Kind) -> Any:
    """Built and weighed, float32, eval mode."""
    import torch

    loader = _loader(config, kind)
    if request.weights == weights.PRETRAINED:
        try:
            module, report = loader.from_pretrained(
                files.folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise BadRequest(f"'{request.model}' cannot be loaded: {first_line(error)}.") from error
        except Exception as error:  # safetensors has an error of its own for a file that was cut short
            if type(error).__name__ != "SafetensorError":
                raise
            raise BadRequest(
                f"The weights of '{request.model}' are not whole ({error}). Copy or download them again."
            ) from error
        _check_complete(request.model, report)
        return module.eval()
    module = loader.from_config(config, trust_remote_code=False).float().eval()
    if request.weights != weights.RANDOM:
        weights.load_file(module, request.weights)
    return module


def _loader(config: Any, kind: _Kind) -> Any:
    """The transformers class that builds such a network. Optimum knows none for video."""
    import transformers
    from optimum.exporters.tasks import TasksManager

    if kind is _VIDEO_KINDS["classify"]:
        return transformers.AutoModelForVideoClassification
    return TasksManager.get_model_class_for_task(kind.pipeline, model_type=config.model_type, library="transformers")


def _check_complete(model: str, report: Mapping[str, Any]) -> None:
    """A pooler that a classifier's checkpoint lacks is unused by ``last_hidden_state``; anything else is an error."""
    missing = [name for name in sorted(report["missing_keys"]) if "pooler." not in name]
    if missing or report["mismatched_keys"]:
        what = missing[0] if missing else sorted(report["mismatched_keys"])[0][0]
        raise BadRequest(
            f"The weights of '{model}' lack '{what}' or hold it in another shape, so it would be random. "
            "Use a checkpoint that was saved whole."
        )


def _plain(config: Any, size: Size, clip: Clip | None) -> dict[str, Any]:
    """``config.json`` as transformers would write it, at the exported size."""
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    if "image_size" in plain:
        plain["image_size"] = size.height if size.height == size.width else [size.height, size.width]
    if clip is not None:
        plain["num_frames"] = clip.frames
    return plain

"""Video networks: which of transformers' architectures eat clips, and how a clip is sampled from a video.

A checkpoint says how many frames it takes and never how far apart they were in training: that is read from the papers.
"""

from __future__ import annotations

from typing import Any

from vitexport.contract import Clip, ExportRequest
from vitexport.errors import BadRequest

#: Frames of a video per frame of a clip, by ``model_type``. VideoMAE: Tong et al. 2022, arXiv:2203.12602, Kinetics.
#: ViViT: Arnab et al. 2021, arXiv:2103.15691, 32 frames with a stride of 2. TimeSformer: Bertasius et al. 2021,
#: arXiv:2102.05095, 8 frames at 1/32.
STRIDES = {"videomae": 4, "vivit": 2, "timesformer": 32}

#: Fields of a request that say how a clip is sampled.
OPTIONS = frozenset({"frames", "frame_stride"})


def takes_clips(config: Any) -> bool:
    """Whether a transformers config is that of a video network."""
    return config.model_type in STRIDES


def clip(config: Any, request: ExportRequest) -> Clip | None:
    """What a network of ``config`` is to eat, as ``request`` asks; None where it takes single pictures.

    Raises ``BadRequest`` where it takes none and frames were asked for, or with the two nearest counts where its
    tubelets do not divide the frames.
    """
    if not takes_clips(config):
        refuse_frames(request)
        return None
    frames = int(config.num_frames) if request.frames is None else request.frames
    depth = tubelet_depth(config)
    if frames % depth or frames < 1:
        below = max(depth, frames // depth * depth)
        raise BadRequest(
            f"{frames} frames are not a multiple of {request.model}'s tubelets of {depth}. "
            f"Try {' or '.join(str(n) for n in sorted({below, below + depth}))}."
        )
    return Clip(frames, request.frame_stride or STRIDES[config.model_type])


def tubelet_depth(config: Any) -> int:
    """Frames that one token sees."""
    size = getattr(config, "tubelet_size", 1)
    return int(size) if isinstance(size, int) else int(size[0])


def refuse_frames(request: ExportRequest) -> None:
    """For networks that take single pictures: ``BadRequest`` where frames were asked for."""
    if request.frames is not None or request.frame_stride is not None:
        flag = "--frames" if request.frames is not None else "--frame-stride"
        raise BadRequest(
            f"'{request.model}' takes single pictures, so {flag} says nothing to it. Leave it out, or name a video "
            "network, such as videomae_small."
        )

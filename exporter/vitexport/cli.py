"""The command line: parse, call, print. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from vitexport import __version__
from vitexport.commands import COMMANDS
from vitexport.errors import OK, OUR_BUG, BadRequest, Interrupted, VitexportError, WorldFailed
from vitexport.terminal import EXIT_CODES, Parser, print_json, progress

if TYPE_CHECKING:
    from vitexport.contract import ExportRequest

_EXPORT_HELP = """\
Turn a PyTorch vision model into something that runs where users are, and prove it.

  vitexport --model vit_small --target webgpu     export, prove, time
  vitexport models | targets                      what can go in, what can come out
  vitexport inspect MODEL                         what it costs at a size, before anything is downloaded
  vitexport inspect DIR --placement               which operations a GPU or NPU would not take
  vitexport check DIR                             prove a bundle again
  vitexport bench DIR [--device browser|adb|ios]  time a bundle, here or on a phone
  vitexport diff DIR                              where it goes wrong, block by block
  vitexport report DIR --add FILE                 take back what a device measured
  vitexport report DIR --html | --markdown        the report for another reader
  vitexport report --compare OLD NEW              what became worse
  vitexport preview DIR                           serve a bundle and open it in a browser
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The ``vitexport`` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # KeyboardInterrupt itself, and no subclass, is remembered where it passes through Python that an extension runs
        # from C, and ends the interpreter by the signal although it was caught (cpython's run_eval_code_obj).
        signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _interrupt_again
    try:
        code = _dispatch([a for a in arguments if a != "--debug"])
        print(end="", flush=True)  # a full disk under our output is noticed here, and not at the interpreter's exit
    except Interrupted as interruption:
        code = _say(interruption)
    except KeyboardInterrupt:
        code = _say(Interrupted(signal.SIGINT))
    except VitexportError as error:
        if debug:
            traceback.print_exc()
        code = _say(error)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = WorldFailed.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = _say_unforeseen(error)
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised inside a finaliser or a weak reference's callback, our interruption too: repeat it.

    A moment later, from a thread: repeated here, it would be raised inside this hook, and dropped likewise.
    """
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    code = unraisable.exc_value.exit_code if isinstance(unraisable.exc_value, Interrupted) else 128 + signal.SIGINT
    repeat = threading.Timer(0.02, os.kill, (os.getpid(), code - 128))
    repeat.daemon = True
    repeat.start()


def _say(error: VitexportError | Interrupted) -> int:
    print(f"vitexport: {error}", file=sys.stderr)
    return error.exit_code


def _say_unforeseen(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _say(WorldFailed("The disk is full: the output could not be written whole. Free some space."))
    print(f"vitexport: a bug of ours: {type(error).__name__}: {error}. Run again with --debug.", file=sys.stderr)
    return OUR_BUG


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        from vitexport.errors import did_you_mean

        raise BadRequest(
            f"Unknown command '{arguments[0]}'.{did_you_mean(arguments[0], COMMANDS)} "
            f"Commands: {', '.join(COMMANDS)}; or vitexport --model NAME --target NAME."
        )
    return _export(arguments)


# -------------------------------------------------------------------------------------------------------- vitexport


def _export_parser() -> argparse.ArgumentParser:
    from vitexport import registry

    known = ", ".join(registry.names())
    parser = Parser(
        prog="vitexport",
        description=_EXPORT_HELP,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", metavar="NAME", help="a preset, a timm name, hf:ORG/NAME, a folder, or file.py:factory")
    add("--target", action="append", metavar="NAME", help=f"{known} or all; repeatable (default: all)")
    add(
        "--size",
        action="append",
        metavar="HxW",
        help="height x width, such as 144x256; one number: square; repeat for a ladder (default: the model's own)",
    )
    add("--pad-size", action="store_true", help="round a size up to the model's patch grid instead of refusing it")
    add("--pos-embed-rule", metavar="NAME", help="how position tables are resampled: timm, hf, ... (default: own)")
    add("--weights-size", metavar="HxW", help="what a weights file was trained at, where its table cannot tell")
    add("--patch-size", type=int, metavar="N", help="FlexiViT: another patch size")
    add(
        "--precision",
        action="append",
        metavar="NAME",
        help="fp32, fp16, w8, w8a8, w4, ... as `vitexport targets` lists them; repeatable (default: the target's own)",
    )
    add("--weights", default="pretrained", metavar="WHAT", help="pretrained (default), random, or a file")
    add("--seed", type=int, default=0, metavar="N", help="of random weights and of the noise image (default: 0)")
    add("--task", choices=("classify", "features", "segment"), help="default: what the model was trained for")
    add("--frames", type=int, metavar="N", help="frames of a clip, for video networks (default: the model's own)")
    add("--frame-stride", type=int, metavar="N", help="frames of a video per frame of a clip (default: as trained)")
    add("--images", metavar="DIR", help="photos to judge parity on (default: four built-in ones)")
    add("--calibration", metavar="DIR", help="photos to measure activations on, for w8a8 (default: the parity photos)")
    add(
        "--observer",
        choices=("min-max", "percentile", "mse", "entropy"),
        help="how activations' ranges are taken from them, for w8a8 and w8a16 (default: mse)",
    )
    add("--out", metavar="DIR", help="where to write (default: exports/<model>)")
    add("--force", action="store_true", help="replace what vitexport wrote to --out before")
    add("--dynamic", action="append", choices=("batch", "size"), default=[], help="leave this dimension open")
    add("--runtime", choices=("copy", "none"), default="copy", help="whether a web bundle carries its runtime")
    add("--max-file", metavar="SIZE", help="largest file a host takes, such as 25MiB: weights are sharded")
    add("--coreml-target", choices=("ios16", "ios17", "ios18"), help="the oldest system it runs on (default: ios17)")
    fed = parser.add_mutually_exclusive_group()
    takes = "what a Core ML package takes:"
    fed.add_argument(
        "--image-input",
        action="store_true",
        default=None,
        help=f"{takes} a picture (default, unless it gives features)",
    )
    fed.add_argument(
        "--tensor-input", dest="image_input", action="store_false", default=None, help=f"{takes} the normalised tensor"
    )
    add("--layout", choices=("ane",), help="Core ML: (B, C, 1, S) and 1x1 convolutions, for the Neural Engine")
    add(
        "--max-drop", type=float, metavar="POINTS", help="of agreement that fewer bits may cost (default: 0.5, masks 1)"
    )
    add("--plan", metavar="FILE", help="plan.json of an earlier export: which layers stay float")
    add("--require-proof", action="store_true", help="count 'not run' as failed")
    add("--require-device", action="store_true", help="count a verdict that a stand-in for the device gave as failed")
    add("--json", action="store_true", help="print the report as JSON on standard output")
    add("--debug", action="store_true", help="show tracebacks")
    add("--version", action="version", version=f"vitexport {__version__}")
    return parser


def _export(arguments: list[str]) -> int:
    parser = _export_parser()
    if not arguments:
        parser.print_help()
        return OK
    asked = parser.parse_args(arguments)
    if not asked.model:
        raise BadRequest("--model is missing. Name one, such as vit_small; `vitexport models` lists the presets.")
    request = _request(asked)

    from vitexport import pipeline

    with progress():
        report = pipeline.export(request)
    if asked.json:
        print_json(report)
    else:
        from vitexport.reports.table import render, summary

        print()
        render(report.results)
        print()
        for note in report.notes:
            print(f"Note: {note}")
        print(summary(report, _called_as()))
    return pipeline.exit_code(report)


def _called_as() -> str:
    """What to type to get this program again: its name where the shell finds it, else the path that was typed."""
    called = Path(sys.argv[0])
    if called.name != "vitexport":
        return "python -m vitexport"
    found = shutil.which("vitexport")
    return "vitexport" if found and Path(found).resolve() == called.resolve() else str(called)


def _request(asked: argparse.Namespace) -> ExportRequest:
    from vitexport.contract import ExportRequest, Size

    return ExportRequest(
        model=asked.model,
        targets=tuple(asked.target or ("all",)),
        sizes=tuple(Size.parse(size) for size in asked.size or ()),
        pad_size=asked.pad_size,
        pos_embed_rule=asked.pos_embed_rule,
        weights_size=Size.parse(asked.weights_size) if asked.weights_size else None,
        patch_size=asked.patch_size,
        frames=asked.frames,
        frame_stride=asked.frame_stride,
        precisions=tuple(asked.precision or ()),
        weights=asked.weights,
        task=asked.task,
        images=asked.images,
        calibration=asked.calibration,
        observer=asked.observer,
        out=asked.out,
        force=asked.force,
        seed=asked.seed,
        dynamic=tuple(asked.dynamic),
        runtime=asked.runtime,
        max_file_bytes=None if asked.max_file is None else _bytes(asked.max_file),
        max_drop=asked.max_drop,
        plan=asked.plan,
        require_proof=asked.require_proof,
        require_device=asked.require_device,
        coreml_target=asked.coreml_target,
        image_input=asked.image_input,
        layout=asked.layout,
    )


def _bytes(text: str) -> int:
    """``25MiB``, ``500KB`` or plain bytes."""
    units = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9, "b": 1, "": 1}
    number = text.rstrip("BKMGibkmg").strip()
    unit = text[len(number) :].strip().lower()
    if not (number.isascii() and number.isdigit()) or int(number) == 0 or unit not in units:
        raise BadRequest(f"--max-file '{text}' is not a size. Write it such as 25MiB.")
    return int(number) * units[unit]

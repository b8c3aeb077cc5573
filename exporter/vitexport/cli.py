"""The command line: parse, call, print. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from vitexport import __version__
from vitexport.errors import OK, OUR_BUG, BadRequest, Interrupted, ParityFailed, VitexportError, WorldFailed

if TYPE_CHECKING:
    from vitexport.contract import ExportRequest, Result
    from vitexport.progress import Step

_EXPORT_HELP = """\
Turn a PyTorch vision model into something that runs where users are, and prove it.

  vitexport --model vit_small --target webgpu     export, prove, time
  vitexport models | targets                      what can go in, what can come out
  vitexport check DIR                             prove a bundle again
  vitexport bench DIR                             time a bundle
  vitexport preview DIR                           serve a bundle and open it in a browser
"""

_EXIT_CODES = """\
exit codes: 0 done, nothing failed · 1 our own bug · 2 impossible request or bad input · 3 a toolchain or browser is
missing · 4 lowering failed · 5 parity failed · 6 disk full or network down · 130/143 interrupted
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The ``vitexport`` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = _dispatch([a for a in arguments if a != "--debug"])
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
        print(f"vitexport: a bug of ours: {type(error).__name__}: {error}. Run again with --debug.", file=sys.stderr)
        code = OUR_BUG
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def _say(error: VitexportError) -> int:
    print(f"vitexport: {error}", file=sys.stderr)
    return error.exit_code


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]](arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        from vitexport.errors import did_you_mean

        raise BadRequest(
            f"Unknown command '{arguments[0]}'.{did_you_mean(arguments[0], _COMMANDS)} "
            f"Commands: {', '.join(_COMMANDS)}; or vitexport --model NAME --target NAME."
        )
    return _export(arguments)


class _Parser(argparse.ArgumentParser):
    """argparse's own mistakes, said as ours are."""

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{message[0].upper()}{message[1:]}. See vitexport --help.")


# -------------------------------------------------------------------------------------------------------- vitexport


def _export_parser() -> argparse.ArgumentParser:
    from vitexport import registry

    known = ", ".join(registry.names())
    parser = _Parser(
        prog="vitexport",
        description=_EXPORT_HELP,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", metavar="NAME", help="a preset, a timm name, hf:ORG/NAME, a folder, or file.py:factory")
    add("--target", action="append", metavar="NAME", help=f"{known} or all; repeatable (default: all)")
    add(
        "--size", metavar="HxW", help="height x width, such as 144x256; one number is square (default: the model's own)"
    )
    add("--precision", action="append", metavar="NAME", help="fp32 or fp16; repeatable (default: the target's own)")
    add("--weights", default="pretrained", metavar="WHAT", help="pretrained (default), random, or a file")
    add("--seed", type=int, default=0, metavar="N", help="of random weights and of the noise image (default: 0)")
    add("--task", choices=("classify", "features", "segment"), help="default: what the model was trained for")
    add("--images", metavar="DIR", help="photos to judge parity on (default: four built-in ones)")
    add("--out", metavar="DIR", help="where to write (default: exports/<model>)")
    add("--force", action="store_true", help="replace what vitexport wrote to --out before")
    add("--dynamic", action="append", choices=("batch",), default=[], help="leave this dimension open")
    add("--runtime", choices=("copy", "none"), default="copy", help="whether a web bundle carries its runtime")
    add("--max-file", metavar="SIZE", help="largest file a host takes, such as 25MiB: weights are sharded")
    add("--require-proof", action="store_true", help="count 'not run' as failed")
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
    from vitexport.progress import listen

    with listen(_Progress()):
        report = pipeline.export(request)
    if asked.json:
        _print_json(report)
    else:
        from vitexport.report import render, summary

        print()
        render(report.results)
        print()
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
        size=Size.parse(asked.size) if asked.size else None,
        precisions=tuple(asked.precision or ()),
        weights=asked.weights,
        task=asked.task,
        images=asked.images,
        out=asked.out,
        force=asked.force,
        seed=asked.seed,
        dynamic=tuple(asked.dynamic),
        runtime=asked.runtime,
        max_file_bytes=_bytes(asked.max_file) if asked.max_file else None,
        require_proof=asked.require_proof,
    )


def _bytes(text: str) -> int:
    """``25MiB``, ``500KB`` or plain bytes."""
    units = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9, "b": 1, "": 1}
    number = text.rstrip("BKMGibkmg").strip()
    unit = text[len(number) :].strip().lower()
    if not number.isdigit() or int(number) == 0 or unit not in units:
        raise BadRequest(f"--max-file '{text}' is not a size. Write it such as 25MiB.")
    return int(number) * units[unit]


class _Progress:
    """One line a step on standard error: its name while it runs, its time when it is done."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self, what: Step) -> None:
        name = f"{what.name:<9} {what.detail}"
        if what.seconds is not None:
            elapsed = time.perf_counter() - self._start
            print(f"\r  {name:<52} {what.seconds:7.1f} s   {elapsed:7.1f} s in all", file=sys.stderr, flush=True)
        elif sys.stderr.isatty():
            print(f"\r  {name:<52} ...", end="", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------- what stands beside it


def _models(arguments: list[str]) -> int:
    _Parser(prog="vitexport models", description="Presets by name; any timm name works as it is.").parse_args(arguments)
    from vitexport import models

    for name, about in models.presets().items():
        print(f"{name:<20} {about}")
    print("\nAlso: any timm name · hf:ORG/NAME or a checkpoint folder · path/to/file.py:factory")
    return OK


def _targets(arguments: list[str]) -> int:
    _Parser(
        prog="vitexport targets", description="Targets, their precisions, and whether they can run here."
    ).parse_args(arguments)
    from vitexport import registry
    from vitexport.errors import MissingToolchain
    from vitexport.toolchain import find

    for name in registry.names():
        traits = registry.target(name).traits
        print(f"{name:<12} {traits.summary}")
        for precision in traits.precisions:
            default = " (default)" if precision.default else ""
            bound = f"{precision.metric} <= {precision.tolerance:g}"
            print(f"{'':<12}   {precision.name}{default}: {bound}; {precision.because}")
        print(f"{'':<12}   proven on: {', '.join(traits.providers)}")
        for need in traits.needs:
            try:
                find(need)
            except MissingToolchain as missing:
                print(f"{'':<12}   missing: {missing}")
    return OK


def _check(arguments: list[str]) -> int:
    from vitexport import proof
    from vitexport.bundle import damage
    from vitexport.manifest import find_bundles

    asked = _bundle_parser("check", "Prove a bundle again, on the golden photos that it carries.").parse_args(arguments)
    found = find_bundles(Path(asked.directory))
    for bundle in found:
        if broken := damage(bundle):
            raise ParityFailed(broken)
    from vitexport import registry
    from vitexport.progress import listen

    with listen(_Progress()):
        results = [
            proof.prove(target, bundle, variant.precision, provider, proof.golden_cases(bundle)).result
            for bundle in found
            for target in [registry.target(bundle.manifest.target)]
            for variant in bundle.manifest.variants
            for provider in target.traits.providers
        ]
    _print_results(results, as_json=asked.json)
    bad = {"failed", "not run"} if asked.require_proof else {"failed"}
    return ParityFailed.exit_code if any(r.verdict in bad for r in results) else OK


def _bench(arguments: list[str]) -> int:
    from vitexport import proof, registry
    from vitexport.manifest import find_bundles
    from vitexport.progress import listen

    asked = _bundle_parser("bench", "Time a bundle in its own runtime, on this host.").parse_args(arguments)
    with listen(_Progress()):
        results = [
            proof.time_only(target, bundle, variant.precision, provider)
            for bundle in find_bundles(Path(asked.directory))
            for target in [registry.target(bundle.manifest.target)]
            for variant in bundle.manifest.variants
            for provider in target.traits.providers
        ]
    _print_results(results, as_json=asked.json)
    return OK


def _preview(arguments: list[str]) -> int:
    parser = _Parser(prog="vitexport preview", description="Serve a bundle on this machine, for a browser to open.")
    parser.add_argument("directory")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one (default: 8000)")
    asked = parser.parse_args(arguments)
    from vitexport import preview

    preview.run(Path(asked.directory), asked.port)
    return OK


def _bundle_parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"vitexport {command}", description=description, epilog=_EXIT_CODES)
    parser.add_argument("directory", help="a bundle, or the folder of bundles that vitexport wrote")
    parser.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    parser.add_argument("--require-proof", action="store_true", help="count 'not run' as failed")
    return parser


def _print_results(results: list[Result], *, as_json: bool) -> None:
    if as_json:
        _print_json(results)
    else:
        from vitexport.report import render

        render(results)


def _print_json(value: object) -> None:
    from vitexport.manifest import encode

    sys.stdout.write(encode(value).decode())


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "models": _models,
    "targets": _targets,
    "check": _check,
    "bench": _bench,
    "preview": _preview,
}

"""The commands beside the export: what goes in and comes out, what it costs, and a bundle again."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vitexport.errors import OK, BadRequest, ParityFailed
from vitexport.terminal import EXIT_CODES, Parser, print_json, progress

if TYPE_CHECKING:
    from vitexport.contract import Result


def _models(arguments: list[str]) -> int:
    Parser(prog="vitexport models", description="Presets by name; any timm name works as it is.").parse_args(arguments)
    from vitexport import models

    for name, about in models.presets().items():
        print(f"{name:<20} {about}")
    print("\nAlso: any timm name · hf:ORG/NAME or a checkpoint folder · path/to/file.py:factory")
    return OK


def _targets(arguments: list[str]) -> int:
    Parser(
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


def _inspect(arguments: list[str]) -> int:
    parser = Parser(
        prog="vitexport inspect",
        description="What a model costs, from its module without weights: nothing is downloaded or built.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("model", help="as --model of an export; with --placement also a bundle, or a folder of bundles")
    parser.add_argument("--size", action="append", metavar="SIZE", help="height x width; repeatable (default: its own)")
    parser.add_argument("--frames", type=int, metavar="N", help="frames of a clip, for video networks")
    parser.add_argument(
        "--placement",
        action="store_true",
        help="instead: the operations that each target's accelerated path does not take, with what would mend it; a "
        "model is lowered with random weights first, which takes as long as an export",
    )
    parser.add_argument("--target", action="append", metavar="NAME", help="with --placement: only this; repeatable")
    parser.add_argument("--precision", action="append", metavar="NAME", help="with --placement: only this; repeatable")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on standard output")
    asked = parser.parse_args(arguments)
    if asked.placement:
        return _inspect_placement(asked)
    if asked.target or asked.precision:
        raise BadRequest("--target and --precision mean something with --placement alone. Add it, or leave them out.")
    from vitexport import anatomy
    from vitexport.contract import Size

    found = anatomy.inspect(asked.model, [Size.parse(size) for size in asked.size or ()], asked.frames)
    if asked.json:
        print_json(found)
    else:
        from vitexport.anatomy.table import render

        print(render(found))
    return OK


def _inspect_placement(asked: argparse.Namespace) -> int:
    from vitexport import lint
    from vitexport.bundle import undamaged
    from vitexport.contract import ExportRequest, Size
    from vitexport.manifest import holds_bundles

    targets, precisions = tuple(asked.target or ()), tuple(asked.precision or ())
    if holds_bundles(Path(asked.model)):
        if asked.size or asked.frames:
            raise BadRequest(f"'{asked.model}' is a bundle, which has its size. Leave --size and --frames out.")
        found = lint.of_bundles(undamaged(Path(asked.model)), targets, precisions)
    else:
        sizes = tuple(Size.parse(size) for size in asked.size or ())
        request = ExportRequest(
            asked.model, targets=targets, sizes=sizes, frames=asked.frames, precisions=precisions, weights="random"
        )
        with progress():
            found = lint.of_model(request)
    if asked.json:
        print_json(found)
    else:
        from vitexport.lint.table import render

        render(found)
    return OK


def _check(arguments: list[str]) -> int:
    from vitexport import proof, registry
    from vitexport.bundle import read_golden, undamaged
    from vitexport.pipeline import binds

    parser = _bundle_parser("check", "Prove a bundle again, on the golden photos that it carries.")
    parser.add_argument("--require-proof", action="store_true", help="count 'not run' as failed")
    asked = parser.parse_args(arguments)
    found = undamaged(Path(asked.directory))
    with progress():
        results = [
            proof.prove(target, bundle, variant.precision, provider, read_golden(bundle)).result
            for bundle in found
            for target in [registry.target(bundle.manifest.target)]
            for variant in bundle.rung.variants
            for provider in target.traits.providers
        ]
    _print_results(results, as_json=asked.json)
    bad = {"failed", "not run"} if asked.require_proof else {"failed"}
    return ParityFailed.exit_code if any(r.verdict in bad for r in results if binds(r)) else OK


def _bench(arguments: list[str]) -> int:
    from vitexport.commands import bench

    return bench.run(arguments)


def _diff(arguments: list[str]) -> int:
    parser = _bundle_parser("diff", "Walk an artifact's blocks beside PyTorch's and name the first whose SNR falls.")
    parser.add_argument("--precision", metavar="NAME", help="only this one (default: all that the bundle has)")
    parser.add_argument("--provider", metavar="NAME", help="only this one (default: all that show what they compute)")
    parser.add_argument("--out", metavar="FILE.png", help="where to draw it (default: diff.png beside the bundle)")
    asked = parser.parse_args(arguments)
    from vitexport import diff

    found = diff.read(Path(asked.directory))
    out = diff.place(asked.out, found)
    with progress():
        traces = diff.diff(found, asked.precision, asked.provider)
    diff.draw(traces, out)
    kept = diff.keep(traces, out)
    if asked.json:
        print_json(traces)
    else:
        from vitexport.diff.table import render

        render(traces)
        print(f"Drawn in {out}; figures in {kept.name}.")
    return OK


def _report(arguments: list[str]) -> int:
    from vitexport.commands import report

    return report.run(arguments)


def _preview(arguments: list[str]) -> int:
    parser = Parser(prog="vitexport preview", description="Serve a bundle on this machine, for a browser to open.")
    parser.add_argument("directory")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one (default: 8000)")
    asked = parser.parse_args(arguments)
    from vitexport import preview

    preview.run(Path(asked.directory), asked.port)
    return OK


def _bundle_parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(prog=f"vitexport {command}", description=description, epilog=EXIT_CODES)
    parser.add_argument("directory", help="a bundle, or the folder of bundles that vitexport wrote")
    parser.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    return parser


def _print_results(results: list[Result], *, as_json: bool) -> None:
    if as_json:
        print_json(results)
    else:
        from vitexport.reports.table import render

        render(results)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "models": _models,
    "targets": _targets,
    "inspect": _inspect,
    "check": _check,
    "bench": _bench,
    "diff": _diff,
    "report": _report,
    "preview": _preview,
}

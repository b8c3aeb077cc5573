"""``vitexport bench``: a bundle's latency on this host, beside another bundle's, or on a device that opens a page."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitexport.errors import OK, BadRequest, ParityFailed
from vitexport.terminal import EXIT_CODES, Parser, print_json, progress

#: Minutes. A phone is as warm as it gets long before.
LONGEST_SUSTAINED = 120.0

#: What only some ways to a device have a use for.
_OPTIONS_OF = {
    ("browser",): ("lan", "port", "timeout", "devices", "name"),
    ("adb",): ("benchmark_model",),
    ("ios",): ("team",),
    ("adb", "ios"): ("serial",),
}

#: Beyond this many threads a number is a slip of the keyboard.
MOST_THREADS = 1024


def run(arguments: list[str]) -> int:
    asked = _parser().parse_args(arguments)
    for devices, options in _OPTIONS_OF.items():
        given = [option for option in options if getattr(asked, option) is not None]
        if given and asked.device not in devices:
            named, ways = given[0].replace("_", "-"), " or ".join(devices)
            raise BadRequest(f"--{named} means nothing without --device {ways}. Add that, or leave it out.")
    for option in ("precision", "provider", "vs_precision"):
        if asked.device and getattr(asked, option) is not None:
            raise BadRequest(f"--{option.replace('_', '-')} means nothing to --device, which runs all. Leave it out.")
    if asked.vs_precision is not None and asked.vs is None:
        raise BadRequest("--vs-precision means nothing without --vs. Add that, or leave it out.")
    if asked.file and (asked.device or asked.vs):
        raise BadRequest(
            f"--file means nothing beside {'--vs' if asked.vs else '--device, which files what it measures'}. "
            "Leave it out."
        )
    if asked.device == "browser":
        return _on_devices(asked)
    threads = _threads(asked.threads)
    if asked.device is not None:
        return _on_a_device(asked, threads)
    if asked.vs is not None:
        if asked.sustained is not None:
            raise BadRequest("--sustained means nothing beside --vs, which runs both in turn. Leave one of them out.")
        return _versus(asked, threads)
    return _on_this_host(asked, threads)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="vitexport bench",
        description="Time a bundle in its own runtime: load, cold (the first inference), steady (median, p90, p99).",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("directory", help="a bundle, or the folder of bundles that vitexport wrote")
    add("--vs", metavar="OTHER", help="another export: run both in turn, and tell the ratio of their times")
    add("--precision", metavar="NAME", help="only this one (default: all that the bundle has)")
    add("--provider", metavar="NAME", help="only this one (default: all that there are)")
    add("--vs-precision", metavar="NAME", help="with --vs: the other's precision, where it is another")
    add("--threads", metavar="N,N", help="once with each of these numbers, such as 1,2,4, where a runtime can be told")
    add("--sustained", type=float, metavar="MINUTES", help="go on for so long, and tell the median of the last 30 s")
    add("--file", action="store_true", help="put the figures into the report, in place of the old ones or beside them")
    add(
        "--device",
        metavar="WHERE",
        help="browser: wait for one on any device; adb: the Android device that is attached; ios: the iPhone or iPad "
        "that is attached to this Mac. Filed in the report",
    )
    add(
        "--lan",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="with --device browser: let your network in, over TLS (default: this machine alone)",
    )
    add("--port", type=int, metavar="N", help="to wait at (default: a free one)")
    add("--timeout", type=float, metavar="S", help="seconds to wait for all devices, beside --sustained (default: 900)")
    add("--devices", type=int, metavar="N", help="how many to wait for, each at an address of its own (default: 1)")
    add("--name", action="append", metavar="NAME", help="what the report calls a device; repeat for more devices")
    add("--serial", metavar="ID", help="with --device adb or ios: which, as `adb devices` or `devicectl` calls it")
    add("--benchmark-model", metavar="PATH", help="with --device adb: LiteRT's benchmark_model for the device")
    add("--team", metavar="ID", help="with --device ios: the Apple developer team that signs what runs there")
    add("--json", action="store_true", help="print the results as JSON on standard output")
    return parser


def _threads(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = text.split(",")
    if not all(p.isascii() and p.isdigit() and 1 <= int(p) <= MOST_THREADS for p in parts):
        raise BadRequest(f"--threads '{text}' is no list of whole numbers from 1 to {MOST_THREADS}, such as 1,2,4.")
    return tuple(dict.fromkeys(map(int, parts)))


def _seconds(minutes: float | None) -> float | None:
    if minutes is not None and not 0 < minutes <= LONGEST_SUSTAINED:
        raise BadRequest(
            f"--sustained {minutes:g} is no number of minutes up to {LONGEST_SUSTAINED:g}. Give one, such as 10."
        )
    return None if minutes is None else minutes * 60


def _on_this_host(asked: argparse.Namespace, threads: tuple[int, ...]) -> int:
    from vitexport import proof, registry
    from vitexport.bundle import undamaged
    from vitexport.devices.filing import file, home_of
    from vitexport.reports.file import read_report, timed_again

    sustained_s = _seconds(asked.sustained)
    directory = Path(asked.directory)
    found = undamaged(directory)
    if asked.file:
        read_report(home_of(directory))  # before minutes are spent on what cannot be filed
    cells = [(b, cell) for b in found for cell in proof.cells(b, threads, asked.precision, asked.provider)]
    if not cells:
        has = ", ".join(dict.fromkeys(f"{c.precision} on {c.provider}" for b in found for c in proof.cells(b)))
        raise BadRequest(f"'{directory}' has no such cell. It has {has}. Name one of these, or none.")
    with progress():
        results = [
            proof.time_only(registry.target(bundle.manifest.target), bundle, cell, sustained_s)
            for bundle, cell in cells
        ]
    filed = file(results, home_of(directory), timed_again) if asked.file else None
    if asked.json:
        print_json(results)
    else:
        from vitexport.reports.table import render

        render(results)
        if filed:
            print(f"Filed in {filed}.")
    return OK


def _on_a_device(asked: argparse.Namespace, threads: tuple[int, ...]) -> int:
    if asked.vs is not None or asked.sustained is not None:
        raise BadRequest("--vs and --sustained are for this machine, not for --device. Leave one of them out.")
    if asked.device == "ios" and threads:
        raise BadRequest("--threads means nothing to --device ios: Core ML decides. Leave it out.")
    from vitexport.contract import Attachment
    from vitexport.devices import attached

    program = None if asked.benchmark_model is None else Path(asked.benchmark_model)
    with progress():
        attachment = Attachment(asked.device, asked.serial, program, threads, asked.team)
        found = attached.measure(Path(asked.directory), attachment)
    if asked.json:
        print_json(found.results)
    else:
        from vitexport.reports.table import render

        render(found.results)
        print(found.filed)
    return ParityFailed.exit_code if any(result.verdict == "failed" for result in found.results) else OK


def _versus(asked: argparse.Namespace, threads: tuple[int, ...]) -> int:
    from vitexport import versus
    from vitexport.bundle import undamaged

    ones, others = (undamaged(Path(folder)) for folder in (asked.directory, asked.vs))
    chosen = versus.Chosen(threads, asked.precision, asked.provider, asked.vs_precision)
    found = versus.contests(ones, others, chosen)
    ratios = []
    with progress():
        for contest in found:
            ratios.append(versus.compare(contest))
            if not asked.json:  # each takes a minute
                print(versus.sentence(ratios[-1], asked.directory, asked.vs), flush=True)
    if asked.json:
        print_json(ratios)
    return OK


def _on_devices(asked: argparse.Namespace) -> int:
    from vitexport.devices import browser

    for option in ("vs", "threads"):
        if getattr(asked, option) is not None:
            raise BadRequest(f"--{option} means nothing to --device browser. Leave it out.")
    timeout_s = browser.TIMEOUT_S if asked.timeout is None else asked.timeout
    if not 0 < timeout_s <= browser.LONGEST_TIMEOUT_S:
        most = f"{browser.LONGEST_TIMEOUT_S:g}"
        raise BadRequest(f"--timeout {timeout_s:g} is no number of seconds up to {most}. Give one, such as 900.")
    names = _names(asked, browser.MOST_DEVICES)
    sustained_s = _seconds(asked.sustained)
    wait = browser.Wait(Path(asked.directory), asked.lan, asked.port or 0, timeout_s, names, sustained_s)
    results = browser.bench(wait)
    if asked.json:
        print_json(results)
    else:
        from vitexport.reports.table import render

        render(results)
    return ParityFailed.exit_code if any(result.verdict == "failed" for result in results) else OK


def _names(asked: argparse.Namespace, most: int) -> tuple[str, ...]:
    """One for each device; empty where its own is to stand."""
    names = tuple(asked.name or ())
    count = asked.devices if asked.devices is not None else len(names) or 1
    if not 1 <= count <= most:
        raise BadRequest(f"--devices {count} is not a whole number from 1 to {most}.")
    if names and len(names) != count:
        raise BadRequest(f"--devices {count} and {len(names)} names do not agree. Give each device a --name, or none.")
    if len(set(names)) < len(names) or not all(0 < len(n) <= 100 and n.isprintable() and n.strip() for n in names):
        raise BadRequest("--name is up to 100 characters that print, another one for each device.")
    return names or ("",) * count

"""Breaks ``.mlpackage`` folders at random and reads what is left: no crash, no hang, no write.

    python tests/fuzz_coreml_package.py --packages 100000 --seed 0

Each package is one that coremltools wrote, harmed once to four times: bytes of any of its three files are changed,
cut, doubled or moved, numbers of the protobuf message made huge, names exchanged. It must be read and evaluated, or
refused by one of the three errors that carry a sentence. Every case can be made again from its seed.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.proto import Model_pb2

from coreml_packages import MODEL, WEIGHTS, net, save
from vitexport.errors import RuntimeUnavailable, VitexportError
from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.package import read

MANIFEST = Path("Manifest.json")
FILES = (MANIFEST, MODEL, WEIGHTS)

#: A sound package takes 3 ms. A thousand times that is a hang.
LONGEST_S = 5

#: Sound ones need some 0.5 GiB with torch; a file of 10 KB that asks for more than this is not to get it.
MOST_MEMORY = 16 << 30

#: Audit events of what changes a file system, but for opening (https://docs.python.org/3/library/audit_events.html).
CHANGES = ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")

Harm = Callable[[random.Random, bytes], bytes]


def flip_a_bit(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def set_a_byte(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + content[at + 1 :]


def truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def cut(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randrange(1, 40) :]


def double(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    end = at + rng.randrange(1, 200)
    return content[:end] + content[at:end] * rng.randrange(1, 4) + content[end:]


def move(rng: random.Random, content: bytes) -> bytes:
    at, to = sorted(rng.randrange(len(content)) for _ in range(2))
    end = min(at + rng.randrange(1, 100), to)
    return content[:at] + content[end:to] + content[at:end] + content[to:]


def insert(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.randrange(1, 20)) + content[at:]


def a_number(rng: random.Random, content: bytes) -> bytes:
    """A machine word set to what breaks arithmetic."""
    size, form = rng.choice(((4, "<I"), (8, "<Q")))
    at = rng.randrange(max(len(content) - size, 1))
    value = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)) % 2 ** (8 * size)
    return content[:at] + struct.pack(form, value) + content[at + size :]


BYTES: tuple[Harm, ...] = (flip_a_bit, set_a_byte, truncate, cut, double, move, insert, a_number)


def redefine(rng: random.Random, content: bytes) -> bytes:
    """The message stays a message; one to three of its leaves change their value."""
    model = Model_pb2.Model()
    try:
        model.ParseFromString(content)
    except Exception:  # already harmed beyond that
        return flip_a_bit(rng, content)
    leaves = list(_leaves(model))
    names = [value for _, _, _, value in leaves if isinstance(value, str)]
    for _ in range(rng.randrange(1, 4)):
        owner, field, index, value = rng.choice(leaves)
        _assign(owner, field, index, _another(rng, field, value, names))
    return model.SerializeToString()


def _leaves(message: Any) -> Iterator[tuple[Any, Any, int | None, Any]]:
    for field, value in message.ListFields():
        several = value if field.is_repeated and not isinstance(value, str | bytes) else None
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in value:
                if field.message_type.fields_by_name["value"].message_type:
                    yield from _leaves(value[key])
        elif field.message_type is not None:
            for part in [value] if several is None else several:
                yield from _leaves(part)
        elif several is None:
            yield message, field, None, value
        else:
            for index, part in enumerate(several):
                yield message, field, index, part


def _assign(owner: Any, field: Any, index: int | None, value: Any) -> None:
    if index is None:
        setattr(owner, field.name, value)
    else:
        getattr(owner, field.name)[index] = value


def _another(rng: random.Random, field: Any, value: Any, names: list[str]) -> Any:
    if isinstance(value, str):
        return rng.choice([*names, "", "x" * 1000, "@model_path/../../../etc/passwd", value + "0"])
    if isinstance(value, bytes):
        return set_a_byte(rng, value) if value else b"\0"
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    if field.enum_type is not None:
        return rng.choice([v.number for v in field.enum_type.values])
    limit = 2**31 - 1 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 2**63 - 1
    return rng.choice((0, 1, 2, 3, 7, 65, 100_000, limit, limit - 1, max(value - 1, 0), min(value + 1, limit)))


def harmed(seed: int, sound: dict[Path, bytes]) -> dict[Path, bytes]:
    """The files of case ``seed``."""
    rng = random.Random(seed)
    files = dict(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        which = rng.choices(FILES, (1, 8, 2))[0]
        if not files[which]:
            continue
        harm = redefine if which == MODEL and rng.random() < 0.6 else rng.choice(BYTES)
        files[which] = harm(rng, files[which])
    return files


class Hang(BaseException):
    """Not an Exception, so that nothing that is tested can swallow it."""


@contextmanager
def deadline() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def writes(seen: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that notes everything that changes a file system while the list ``seen`` is armed with ``""``."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not seen or seen[0]:
            return
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writing or event in (
            "os.remove",
            "os.rename",
            "os.mkdir",
            "os.rmdir",
            "os.link",
            "os.symlink",
            "os.truncate",
        ):
            seen.append(f"{event} {arguments[0]!r}")

    return hook


def outcome(package: Path) -> str:
    """``ran``, or the name of the error that refused it. What is raised otherwise is a crash."""
    try:
        with deadline():
            loaded = read(package)
            function = loaded.default_function
            Evaluator(loaded, function).run({"image": np.zeros((1, 3, 8, 8), np.float32)})
            return "ran"
    except (VitexportError, RuntimeUnavailable) as refusal:
        if not str(refusal) or "\n" in str(refusal):
            raise AssertionError(f"no sentence: {str(refusal)!r}") from refusal
        return type(refusal).__name__


def fuzz(seeds: range, folder: Path, say: Callable[[str], None] = lambda _: None) -> tuple[Counter[str], list[str]]:
    """How many packages ended how, and what went wrong, a line for each seed."""
    package = save(net(), folder / "net.mlpackage")
    sound = {which: (package / which).read_bytes() for which in FILES}
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    said = 0
    armed: list[str] = ["off"]
    sys.addaudithook(writes(armed))
    for seed in seeds:
        for which, content in harmed(seed, sound).items():
            (package / which).write_bytes(content)
        armed[:] = [""]
        try:
            ends[outcome(package)] += 1
        except Hang:
            wrong.append(f"seed {seed}: more than {LONGEST_S} s")
        except Exception:
            wrong.append(f"seed {seed}: {traceback.format_exc(limit=-3)}")
        wrong += [f"seed {seed}: wrote: {done}" for done in armed[1:]]
        armed[:] = ["off"]
        if (seed - seeds.start) % 2500 == 2499:
            say(f"{seed - seeds.start + 1} packages: {dict(ends)}")
            say("\n".join(wrong[said:]) or "nothing new went wrong")
            said = len(wrong)
    return ends, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ends, wrong = fuzz(range(asked.seed, asked.seed + asked.packages), Path(folder), lambda s: print(s, flush=True))
    print(f"{sum(ends.values())} packages in {time.monotonic() - start:.0f} s: {dict(ends)}")
    print("\n".join(wrong) if wrong else "nothing went wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())

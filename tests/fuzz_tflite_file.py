"""Breaks ``.tflite`` files at random and takes what is left through ``vitexport check``'s path: no crash, no hang.

    python tests/fuzz_tflite_file.py --files 20000 --seed 0

Each file is one that we export (float32, w8, w4, two sizes in one file, a uint8 picture), harmed once to four times:
bytes outside of its weights are changed, cut, doubled, made offsets to elsewhere; or values of the schema's objects
are, and the file is written anew. It must be opened and answer the golden photos on both native providers, or be
refused with a sentence. LiteRT may crash in the trial, which is what the trial is for; nothing may crash after it.

A trial is a process of its own, which takes a second to import LiteRT. Here it is a fork of one that has imported it,
as is the process that stands for ``vitexport check``; all else is the product's own code. Every case can be made again
from its seed.

Seeds 0 to 21,999, in LiteRT 2.3.0: 5,055 answered, 10,373 were refused by us and 6,514 by LiteRT; in the trial it
crashed on 44 and did not end on 3. Nothing crashed after the trial, nothing of ours was raised; 11 sentences were no
sentences, quoting a thousand letters or a zero out of the file, which was mended.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from vitexport import ExportRequest, Size, export, registry
from vitexport.bundle import read_golden
from vitexport.contract import Bundle
from vitexport.errors import VitexportError
from vitexport.manifest import read_bundles
from vitexport_targets.tflite import trial
from vitexport_targets.tflite.litertjs.session import _graph_of

MODELS = Path(__file__).parent / "models.py"

#: Imported before there is a fork, and so once.
PRELOADED = ("ai_edge_litert.compiled_model", "ai_edge_litert.interpreter", "vitexport_targets.tflite.native")

TARGET = registry.target("tflite")

#: What is exported to be harmed: networks of tests/models.py, and what else is asked for.
SOURCES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("roomy", {"precisions": ("fp32", "w8", "w4")}),
    ("any_size", {"precisions": ("fp32", "w8"), "sizes": (Size(32, 32), Size(32, 64))}),
    ("tiny", {"precisions": ("fp32",), "image_input": True}),
    ("tiny_mask", {"precisions": ("fp32",)}),
)

#: An export takes 5 s where nothing else runs.
LONGEST_EXPORT_S = 600

#: A sound file takes 0.05 s. Two hundred times that is a hang; the product waits longer, for larger files.
LONGEST_S = 10

#: What the product allows its trials of files that are this small.
MOST_MEMORY = trial.most_memory(0)

Harm = Callable[[random.Random, bytes], bytes]


# ---------------------------------------------------------------------------------------------------- bytes are harmed


def place(rng: random.Random, content: bytes) -> int:
    """Where to do harm. Nine times in ten not among the weights, which harm only the answer: what is around them is at
    the ends of a file, and at most 12 KB."""
    if rng.random() < 0.1 or len(content) < 24_000:
        return rng.randrange(max(len(content), 1))
    return rng.choice((rng.randrange(12_000), len(content) - 1 - rng.randrange(12_000)))


def flip_a_bit(rng: random.Random, content: bytes) -> bytes:
    at = place(rng, content)
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def set_a_byte(rng: random.Random, content: bytes) -> bytes:
    at = place(rng, content)
    return content[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + content[at + 1 :]


def truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: place(rng, content)]


def cut(rng: random.Random, content: bytes) -> bytes:
    at = place(rng, content)
    return content[:at] + content[at + rng.choice((1, 2, 4, 8, 16, rng.randrange(1, 200))) :]


def double(rng: random.Random, content: bytes) -> bytes:
    at = place(rng, content)
    end = at + rng.choice((4, 8, 16, rng.randrange(1, 200)))
    return content[:end] + content[at:end] * rng.randrange(1, 4) + content[end:]


def insert(rng: random.Random, content: bytes) -> bytes:
    at = place(rng, content)
    return content[:at] + rng.randbytes(rng.choice((1, 4, 8, rng.randrange(1, 40)))) + content[at:]


def copy_over(rng: random.Random, content: bytes) -> bytes:
    """A range takes another's place: tables and vectors are exchanged."""
    at, to, size = place(rng, content), place(rng, content), rng.choice((2, 4, 8, 16, 32))
    return content[:to] + content[at : at + size] + content[to + size :]


def a_number(rng: random.Random, content: bytes) -> bytes:
    """An aligned word set to what breaks arithmetic, as an offset, a length, an index or a side."""
    at = place(rng, content) & ~3
    old = int.from_bytes(content[at : at + 4], "little")
    near = old + rng.choice((-8, -4, -1, 1, 4, 8))
    value = rng.choice((0, 1, near, len(content), len(content) - at, 2**16, 2**31 - 1, 2**31, 2**32 - 1, old << 8))
    return content[:at] + struct.pack("<I", value & 0xFFFFFFFF) + content[at + 4 :]


def a_vtable(rng: random.Random, content: bytes) -> bytes:
    """An entry of a table's vtable, which says where in the table a field is."""
    tables = [at for at in range(0, min(len(content) - 4, 12_000), 4) if _vtable(content, at)]
    tables += [at for at in range(max(len(content) - 12_000, 0) & ~3, len(content) - 4, 4) if _vtable(content, at)]
    if not tables:
        return flip_a_bit(rng, content)
    vtable = _vtable(content, rng.choice(tables))
    (size,) = struct.unpack_from("<H", content, vtable)
    at = vtable + 2 * rng.randrange(size // 2)
    value = rng.choice((0, 2, 4, 6, 8, 12, 16, 64, 0x7FFF, 0xFFFF))
    return content[:at] + struct.pack("<H", value) + content[at + 2 :]


def _vtable(content: bytes, at: int) -> int:
    """Of the table at ``at``, by all appearances; 0 where there is none."""
    (back,) = struct.unpack_from("<i", content, at)
    vtable = at - back
    if not 0 < vtable < len(content) - 4 or not 0 < back < 2**16:
        return 0
    size, inline = struct.unpack_from("<HH", content, vtable)
    return vtable if 4 <= size <= 40 and size % 2 == 0 and 4 <= inline <= 120 and vtable + size <= len(content) else 0


BYTES: tuple[Harm, ...] = (
    *(flip_a_bit, set_a_byte, truncate, cut, double, insert, copy_over),
    *(a_number, a_number, a_number, a_vtable, a_vtable),
)


# -------------------------------------------------------------------------------------------------- objects are harmed


def redefine(rng: random.Random, content: bytes) -> bytes:
    """The file stays a file; one to three values in it change: indices, types, shapes, options, names."""
    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        leaves = [leaf for leaf in _leaves(model) if leaf[2] is not None]
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change(rng, *rng.choice(leaves))
        builder = flatbuffers.Builder(len(content) + 1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
    except Exception:  # already harmed beyond that, or no longer to be written
        return a_number(rng, content)


def another_operation(rng: random.Random, content: bytes) -> bytes:
    """One operator code becomes another operation, known, custom or from the future; its options stay or go."""
    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        code = rng.choice(model.operatorCodes)
        number = rng.choice((schema.BuiltinOperator.CUSTOM, rng.randrange(210), rng.randrange(210), 100_000))
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
        code.customCode = rng.choice((None, "Mystery", "Two\nlines", ""))
        code.version = rng.choice((code.version, 1, 2, 99))
        if rng.random() < 0.5:
            for operation in model.subgraphs[0].operators:
                operation.builtinOptions, operation.builtinOptionsType = None, 0
        builder = flatbuffers.Builder(len(content) + 1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
    except Exception:
        return set_a_byte(rng, content)


def _leaves(owner: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Where each value is: its owner, an attribute's name or a position, and the value."""
    pairs = enumerate(owner) if isinstance(owner, list) else vars(owner).items()
    for key, value in pairs:
        if isinstance(value, list) or hasattr(value, "Pack"):
            yield from _leaves(value)
            if isinstance(value, list) and value:
                yield owner, key, value
        else:
            yield owner, key, value


def _change(rng: random.Random, owner: Any, key: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        value = _another_vector(rng, value)
    elif isinstance(value, list):
        value = rng.choice((value[:-1], [*value, rng.choice(value)], rng.sample(value, len(value)), []))
    elif isinstance(value, bytes | str):
        value = rng.choice(
            (
                b"",
                b"x" * 1000,
                b"\xff\xfe",
                b"a\nb",
                bytes(value, "utf-8", "replace") if isinstance(value, str) else value + b"0",
            )
        )
    elif isinstance(value, bool):
        value = not value
    elif isinstance(value, float):
        value = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    else:
        value = rng.choice((0, 1, 2, 3, 7, 17, 100, -1, value + 1, value - 1, 127, 2**31 - 1))
    if isinstance(owner, list):
        owner[key] = value
    else:
        setattr(owner, key, value)


def _another_vector(rng: random.Random, vector: Any) -> Any:
    """One element changed, or the length; a shape, an operation's operands, quantisation's scales, a constant."""
    if not len(vector) or rng.random() < 0.3:
        return rng.choice((vector[:-1], np.concatenate([vector, vector[-1:]]), vector[::-1].copy(), vector[:0]))
    changed = vector.copy()
    at = rng.randrange(len(vector))
    if vector.dtype.kind == "f":
        changed[at] = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    else:
        limits = np.iinfo(vector.dtype)
        near = int(vector[at]) + rng.choice((-1, 1, 8))
        value = rng.choice((0, 1, 2, 3, 5, -1, -4, near, rng.randrange(64), 70_000, limits.max, limits.min))
        changed[at] = min(max(value, int(limits.min)), int(limits.max))
    return changed


def harmed(seed: int, sound: bytes) -> bytes:
    """The file of case ``seed``."""
    rng = random.Random(seed)
    content = sound
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if content:
            content = rng.choice((redefine, redefine, another_operation, rng.choice(BYTES), rng.choice(BYTES)))(
                rng, content
            )
    return content


# ----------------------------------------------------------------------------------------------- the product is driven


class Died(Exception):
    """A forked process did not answer: it was killed by a signal, or hung."""


def forked(body: Callable[[], str], longest_s: float) -> str:
    """What ``body`` answers in a process of its own. Raises ``Died``."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            os.setpgid(0, 0)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            said = body()
            with os.fdopen(writing, "w", errors="replace") as pipe:
                pipe.write(said)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    try:
        said = _read_all(reading, time.monotonic() + longest_s)
    except TimeoutError:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise Died(f"more than {longest_s:g} s") from None
    finally:
        os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise Died(signal.Signals(os.WTERMSIG(status)).name)
    return said


def _read_all(reading: int, until: float) -> str:
    parts = []
    while True:
        if not select.select([reading], [], [], max(until - time.monotonic(), 0))[0]:
            raise TimeoutError
        part = os.read(reading, 1 << 16)
        if not part:
            return b"".join(parts).decode("utf-8", "replace")
        parts.append(part)


def first_run(path: Path) -> trial.Outcome:
    """The product's, but for the start of its process."""
    said = path.with_suffix(".said")

    def body() -> str:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        return str(trial.main(str(path)))

    try:
        code = int(forked(body, LONGEST_S))
    except Died as died:
        how = str(died)
        code = None if how.startswith("more") else -int(signal.Signals[how])
    return trial.Outcome(code, said.read_text(errors="replace"))


def taken(bundles: tuple[Bundle, ...], precision: str) -> str:
    """What ``vitexport check`` does with one file: ``answered``, or the sentence that refuses it."""
    try:
        for bundle in bundles:
            cases = read_golden(bundle)
            path = bundle.path(bundle.variant(precision).files[0])
            for provider in ("interpreter", "compiled-model"):
                with TARGET.open(bundle, precision, provider) as session:
                    for case in cases:
                        session.run(case.pixel_values)
            _graph_of(path, next(iter(trial.held(path).signatures)))  # which the web needs
        return "answered"
    except VitexportError as refusal:
        said = str(refusal)
        if not said.endswith(".") or not said.isprintable() or len(said) > 400:
            raise AssertionError(f"no sentence: {said!r}") from refusal
        return f"{_kind(said)}: {said}"


def _kind(said: str) -> str:
    if "LiteRT crashes" in said:
        return "LiteRT crashed"
    if "was not done" in said:
        return "LiteRT hung"
    if "asks for more" in said:
        return "LiteRT out of memory"
    return "LiteRT refused" if said.startswith("LiteRT") or "which LiteRT does not have" in said else "we refused"


def outcome(bundles: tuple[Bundle, ...], precision: str) -> str:
    """Of :func:`taken`, in a process of its own. Raises ``Died``, or ``AssertionError`` with a bug of ours."""

    def body() -> str:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.RLIM_INFINITY))
        try:
            return taken(bundles, precision)
        except Exception:
            return f"ours: {traceback.format_exc(limit=-4)}"

    said = forked(body, 3 * LONGEST_S)
    if not said or said.startswith("ours"):
        raise AssertionError(said)
    return said


@contextmanager
def forking() -> Iterator[None]:
    """Inside, a trial is a fork of this process."""
    kept = trial.first_run
    trial.first_run = first_run
    try:
        yield
    finally:
        trial.first_run = kept


@dataclass(frozen=True)
class Sound:
    """One file that we export, at each of its sizes."""

    bundles: tuple[Bundle, ...]
    precision: str
    path: Path
    content: bytes

    @classmethod
    def of(cls, bundles: tuple[Bundle, ...], precision: str) -> Sound:
        path = bundles[0].path(bundles[0].variant(precision).files[0])
        return cls(bundles, precision, path, path.read_bytes())


def exported(folder: Path) -> str:
    """All of :data:`SOURCES`. A process that has done it has torch in it, and forks slowly."""
    for model, asked in SOURCES:
        export(ExportRequest(model=f"{MODELS}:{model}", targets=("tflite",), out=str(folder / model), **asked))
    return "exported"


def sound(folder: Path) -> list[Sound]:
    """What was exported to ``folder``."""
    found = []
    for model, asked in SOURCES:
        out = folder / model  # what fails its own parity lies beside it, as w4 does
        bundles = read_bundles((out if out.exists() else out.with_name(f"{model}.failed")) / "tflite")
        found += [Sound.of(bundles, precision) for precision in asked["precisions"]]
    return found


def fuzz(seeds: range, folder: Path, say: Callable[[str], None] = lambda _: None) -> tuple[Counter[str], list[str]]:
    """How many of the files in ``folder``, harmed, ended how; and what went wrong, a line for each seed."""
    files = sound(folder)
    for name in PRELOADED:
        importlib.import_module(name)
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    with forking():
        for seed in seeds:
            file = files[seed % len(files)]
            file.path.write_bytes(harmed(seed, file.content))
            try:
                said = outcome(file.bundles, file.precision)
                ends[said.partition(":")[0]] += 1
                say(f"seed {seed}: {said}")
            except (Died, AssertionError) as failure:
                wrong.append(f"seed {seed}: WRONG on {file.path.name}: {failure}")
                say(wrong[-1])
    return ends, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--exports", type=Path, help="where sound files are kept between runs (default: nowhere)")
    parser.add_argument("--verbose", action="store_true", help="print how each file ends")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "sound"
        if asked.exports is not None and asked.exports.exists():
            shutil.copytree(asked.exports, folder)
        else:
            assert forked(lambda: exported(folder), LONGEST_EXPORT_S), "the export failed"
            if asked.exports is not None:
                shutil.copytree(folder, asked.exports)
        start = time.monotonic()
        say = (lambda line: print(line, flush=True)) if asked.verbose else (lambda _: None)
        ends, wrong = fuzz(range(asked.seed, asked.seed + asked.files), folder, say)
    print(f"{asked.files} files in {time.monotonic() - start:.0f} s: {dict(ends)}")
    print("\n".join(wrong) if wrong else "nothing went wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

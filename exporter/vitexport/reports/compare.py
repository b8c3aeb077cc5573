"""``vitexport report --compare OLD NEW``: what became worse since an earlier export, as a verdict that a CI can act on.

A cell that the exporting host ran and that is gone, or one that was passed and is not now, is a regression whatever its
figures say; a phone's is ``not run`` where it is gone, for nobody asked it again. Bytes and accuracy are compared
wherever both sides have them; latency only where the same device ran it in the same runtime, for anything else compares
two devices. It is judged by what is known of the medians (:mod:`vitexport.spread`): worse where even the
most favourable pair of their intervals' ends is beyond what is allowed, within where the least favourable keeps it.
What cannot be compared or told is ``not run``, never ``passed``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

from vitexport import spread
from vitexport.contract import Report, Size, Verdict
from vitexport.errors import BadRequest
from vitexport.parity import ROUNDING_DB
from vitexport.reports.cells import Row, Shown, rows
from vitexport.reports.file import device_of
from vitexport.reports.pairs import key, pairs, told_by

#: As :data:`vitexport.parity.ROUNDING_DB` for drift: below a hundred-thousandth.
ROUNDING_DRIFT = 1e-5

#: What a cell was or is; ``missing``: the report does not have it.
Was = Shown | Literal["missing"]


@dataclass(frozen=True)
class Allowed:
    """How much worse a cell may be."""

    bytes_percent: float = 1.0
    """An export that is repeated is the same, in ONNX and Core ML to the byte; a converter's next release renames,
    which is well below 1 % of the smallest preset (2.4 of selfie's 242 kB)."""
    drift_ratio: float = 4.0
    """The factor that parity grants float32 over PyTorch's own rounding: other processors add up in another order."""
    snr_drop_db: float = 3.0
    """Twice the noise. As much as ``vitexport diff`` asks of a place before it says that SNR falls there."""
    agreement_points: float = 0.5
    """Of a hundred: what ``--max-drop`` grants fewer bits where nothing is said."""
    latency_ratio: float = 1.25
    """Two files of equal work came out up to 1.08 apart on shared cores (README, `make bench`), and three times that
    distance is not chance."""


@dataclass(frozen=True)
class Check:
    """One figure of a cell, then and now."""

    figure: str
    verdict: Verdict
    old: float | None = None
    new: float | None = None
    change: float | None = None
    """In the unit of ``allowed``: percent of bytes, ratios of drift and latency, dB, points."""
    allowed: float | None = None
    reason: str = ""
    """Why it failed or could not be compared."""
    low: float | None = None
    high: float | None = None
    """Between which ``change`` lies, as far as the runs tell; of latency alone."""


@dataclass(frozen=True)
class Compared:
    """One cell: target x precision x provider x size, on a device."""

    target: str
    precision: str
    provider: str
    size: Size
    device: str
    was: Was
    now: Was
    verdict: Verdict
    """``failed`` if any of its checks failed; ``passed`` where it was proven again, or its latency was compared and
    kept: of a cell that did not run, bytes prove nothing."""
    checks: tuple[Check, ...]
    told_by: str = ""
    """What tells it from another cell of the same target, precision, provider and size; empty where there is none."""

    @property
    def name(self) -> str:
        cell = f"{self.target} {self.precision} on {self.provider}, {self.size}"
        return f"{cell}, {self.told_by}" if self.told_by else cell

    @property
    def where(self) -> str:
        """The provider, for tables."""
        return f"{self.provider}, {self.told_by}" if self.told_by else self.provider

    @property
    def said(self) -> str:
        """The verdict in a word or two, with what it leaves out."""
        if self.was == "missing":
            return "new"
        if self.verdict == "failed":
            return "worse"
        if self.verdict == "not run":
            if self.now == "missing":
                return "gone" if self.was == "not run" else "not asked again"
            return {"failed": "still failed", "not run": "not run"}.get(self.now, "not compared")
        left = [check.figure for check in self.checks if check.verdict == "not run"]
        return f"all but {', '.join(left)}" if left else "within"


@dataclass(frozen=True)
class Comparison:
    verdict: Verdict
    """``failed`` if any cell's is, else ``passed`` if any is."""
    allowed: Allowed
    cells: tuple[Compared, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know of the two sides."""

    @property
    def regressions(self) -> tuple[str, ...]:
        """A sentence each."""
        failed = [(cell, check) for cell in self.cells for check in cell.checks if check.verdict == "failed"]
        return tuple(f"{cell.name}: {check.reason}" for cell, check in failed)


def compare(old: Report, new: Report, allowed: Allowed) -> Comparison:
    """Every cell of either. Raises ``BadRequest`` where ``old`` has none."""
    if not old.results:
        raise BadRequest("The old report has no results, so nothing can have become worse. Name another.")
    paired = pairs(rows(old), rows(new))
    shown = [row for pair in paired if (row := pair[1] or pair[0]) is not None]
    cells = tuple(
        replace(
            _compared(*pair, allowed),
            told_by=told_by(row, [other for other in shown if other is not row and key(other) == key(row)]),
        )
        for pair, row in zip(paired, shown, strict=True)
    )
    return Comparison(_worst(cell.verdict for cell in cells), allowed, cells, tuple(_notes(old, new)))


def checked(allowed: Allowed) -> Allowed:
    """Raises ``BadRequest`` where a bound is none."""
    for field in fields(allowed):
        value = getattr(allowed, field.name)
        least = 1 if field.name.endswith("ratio") else 0
        if not least <= value < float("inf"):
            raise BadRequest(
                f"{value:g} is no bound for {field.name.replace('_', ' ')}: write a number from {least} on."
            )
    return allowed


def _notes(old: Report, new: Report) -> Iterator[str]:
    models = {report.results[0].model if report.results else report.request.model for report in (old, new)}
    if len(models) > 1:
        yield f"The two are of different models: {' and '.join(sorted(models))}."
    if old.provenance.weights_sha256 != new.provenance.weights_sha256:
        yield "The weights differ, so the accuracy of two networks is compared, not of two exports of one."
    if old.vitexport != new.vitexport:
        yield f"Exported by vitexport {old.vitexport} then, {new.vitexport} now."


# --------------------------------------------------------------------------------------------------------- judging


def _compared(old: Row | None, new: Row | None, allowed: Allowed) -> Compared:
    known = new or old
    assert known is not None
    if old is None or new is None:
        checks: tuple[Check, ...] = (_gone(old),) if old else ()
    else:
        checks = tuple(_checks(old, new, allowed))
    proven = new is not None and new.verdict == "passed"
    # A verdict that did not fall proves nothing of a cell that did not run, and neither do bytes.
    judged = [check.verdict for check in checks if check.verdict == "failed" or proven or check.figure == "latency"]
    return Compared(
        known.result.target,
        known.result.precision,
        known.result.provider,
        known.result.size,
        known.ran_on,
        old.verdict if old else "missing",
        new.verdict if new else "missing",
        _worst(judged),
        checks,
    )


def _gone(old: Row) -> Check:
    """An export makes its own host's cells again; a device's come back where it is asked once more."""
    if old.verdict == "not run":
        return Check("verdict", "not run", reason="it was not run, and is gone")
    if device_of(old.result):
        return Check("verdict", "not run", reason=f"it was {old.verdict}, and this device was not asked again")
    return Check("verdict", "failed", reason=f"it was {old.verdict}, and is gone")


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    """What was not run takes nothing from what passed, and adds nothing."""
    found = set(verdicts)
    return "failed" if "failed" in found else "passed" if "passed" in found else "not run"


#: From the best to the worst. ``timed`` proves less than ``passed``, and nothing at all is proven by ``not run``;
#: whatever failed cannot fall.
_RANK: dict[Shown, int] = {"passed": 2, "timed": 1, "not run": 0, "failed": 0}


def _checks(old: Row, new: Row, allowed: Allowed) -> Iterator[Check]:
    yield from _verdicts(old, new)
    if old.bytes:
        grown = 100 * (new.bytes / old.bytes - 1)
        said = f"{old.bytes:,} bytes became {new.bytes:,}, {grown:+.1f} %"
        yield _bounded("bytes", (old.bytes, new.bytes), grown, allowed.bytes_percent, said)
    yield from _accuracy(old, new, allowed)
    yield from _latency(old, new, allowed.latency_ratio)


def _verdicts(old: Row, new: Row) -> Iterator[Check]:
    fell = _RANK[new.verdict] < _RANK[old.verdict]
    why = f" ({new.why})" if new.why else ""
    yield Check(
        "verdict", "failed" if fell else "passed", reason=f"was {old.verdict}, is {new.verdict}{why}" if fell else ""
    )
    absent = new.result.device_verdict == "not run" and new.verdict == "passed"
    if old.result.device_verdict == "passed" and absent:
        reason = f"a device passed it, none ran it now ({new.result.device_reason or 'no reason is known'})"
        yield Check("device", "failed", reason=reason)


def _accuracy(old: Row, new: Row, allowed: Allowed) -> Iterator[Check]:
    then, now = old.result.parity, new.result.parity
    if then.drift is not None and now.drift is not None:
        ratio = max(now.drift, ROUNDING_DRIFT) / max(then.drift, ROUNDING_DRIFT)
        said = f"drift {then.drift:.1e} became {now.drift:.1e}"
        yield _bounded("drift", (then.drift, now.drift), ratio, allowed.drift_ratio, said)
    if then.snr_db is not None and now.snr_db is not None:
        lost = min(then.snr_db, ROUNDING_DB) - min(now.snr_db, ROUNDING_DB)
        said = f"SNR fell from {then.snr_db:.1f} to {now.snr_db:.1f} dB"
        yield _bounded("snr_db", (then.snr_db, now.snr_db), lost, allowed.snr_drop_db, said)
    for name, before, after in (
        ("agreement", then.agreement, now.agreement),
        ("person_iou", then.person_iou, now.person_iou),
    ):
        if before is not None and after is not None:
            points = 100 * (before - after)
            said = f"{name.replace('person_iou', 'IoU of people')} fell from {before:.4f} to {after:.4f}"
            yield _bounded(name, (before, after), points, allowed.agreement_points, said)


def _latency(old: Row, new: Row, most: float) -> Iterator[Check]:
    then, now = old.result.latency, new.result.latency
    if not then.median_ms:
        return
    if not now.median_ms:
        if new.verdict in ("passed", "timed"):
            yield Check("latency", "failed", then.median_ms, reason=f"it was timed, and is not now ({now.reason})")
        return
    pair = (then.median_ms, now.median_ms)
    ratio = now.median_ms / then.median_ms
    if elsewhere := _elsewhere(old, new):
        yield Check("latency", "not run", *pair, reason=elsewhere)
        return
    known = spread.of_ratio(now.times_ms, then.times_ms)
    low, high = (known.low, known.high) if known else (None, None)
    between = f" ({low:.2f} to {high:.2f})" if known else ""
    said = f"median {then.median_ms:,.1f} ms became {now.median_ms:,.1f}, {ratio:.2f} times{between}"
    if otherwise := _otherwise(old, new):
        yield Check("latency", "not run", *pair, ratio, most, f"{otherwise}: {said}", low, high)
    elif low is None or high is None:  # no single runs were kept
        yield _bounded("latency", pair, ratio, most, said)
    elif low <= most < high:
        reason = f"too wide to tell: {said}, and {most:g} is allowed. Time both again on a quiet machine"
        yield Check("latency", "not run", *pair, ratio, most, reason, low, high)
    else:
        yield replace(_bounded("latency", pair, ratio, most, said), low=low, high=high)


def _elsewhere(old: Row, new: Row) -> str:
    """Why the two figures are of two devices, or of none; empty where they are of one."""
    then, now = old.result.latency, new.result.latency
    if stand_in := old.stand_in or new.stand_in:
        return f"no device's times ({stand_in})"
    both = then.facts.keys() & now.facts.keys()  # older reports have fewer
    facts = (("os", "operating system"), ("cores", "number of cores"))
    return _another(
        ("device", then.device, now.device),
        *((what, _system(then.facts[fact]), _system(now.facts[fact])) for fact, what in facts if fact in both),
        ("runtime", then.runtime, now.runtime),
        ("provider", then.provider, now.provider),
    )


def _system(told: str) -> str:
    """``Linux x86_64`` of :mod:`vitexport.host`'s ``Linux 6.8.0-45-generic x86_64``: a kernel's patch makes no other
    machine, and CI's runners get one every few weeks. What a phone says (``Android 16``) stays as it is."""
    match told.split():
        case [("Linux" | "Darwin" | "Windows") as name, _, machine]:
            return f"{name} {machine}"
    return told


def _otherwise(old: Row, new: Row) -> str:
    """Why one device's two figures tell nothing of what it was given to run."""
    then, now = old.result.latency, new.result.latency
    threads = ("number of threads", then.facts.get("threads", "any"), now.facts.get("threads", "any"))
    if told := _another(threads) or spread.besides(then.warning) or spread.besides(now.warning):
        return told
    few = any(times and spread.of_median(times) is None for times in (then.times_ms, now.times_ms))
    return "too few runs to tell how well the medians are known" if few else ""


def _another(*compared: tuple[str, str, str]) -> str:
    """Of things that both sides name, the first that is not the same."""
    return next((f"another {what}: {old}, then {new}" for what, old, new in compared if old != new), "")


def _bounded(figure: str, pair: tuple[float, float], change: float, allowed: float, said: str) -> Check:
    """NaN is beyond any bound."""
    if change <= allowed:
        return Check(figure, "passed", *pair, change, allowed)
    return Check(figure, "failed", *pair, change, allowed, f"{said}; {allowed:g} is allowed")

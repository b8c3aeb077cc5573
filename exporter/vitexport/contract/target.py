"""The one seam: what a target implements, and what it may be as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

from vitexport.contract.bundle import Artifact, Bundle, Metric
from vitexport.contract.proof import Device, Gate, NonNegative, Parity, Placement, Result
from vitexport.contract.request import ExportRequest
from vitexport.contract.site import Site
from vitexport.contract.source import Case, SourceModel
from vitexport.errors import BadRequest

if TYPE_CHECKING:
    from vitexport.contract.source import Tensor, Tensors

_T = TypeVar("_T")


@dataclass(frozen=True)
class Precision:
    """A precision that a target offers. ``because`` says where the tolerance's number comes from."""

    name: str
    tolerance: float
    because: str
    metric: Metric = "drift"
    default: bool = False


@dataclass(frozen=True)
class Need:
    """Something a target cannot do without, as data: found, or reported missing with the command that brings it."""

    kind: Literal["python", "npm", "browser"]
    name: str
    install: str


@dataclass(frozen=True)
class Traits:
    """What a target can do, as data: listed, documented and tested without importing its toolchain."""

    name: str
    summary: str
    precisions: tuple[Precision, ...]
    providers: tuple[str, ...]
    """Each variant is proven on every one of them."""
    older: tuple[str, ...] = ()
    """Those of ``providers``, the oldest first, that are runtimes of years ago. What passes there is stated in the
    manifest; what does not is their limit and no fault of the artifact, hence ``not run``, whatever is required."""
    needs: tuple[Need, ...] = ()
    options: tuple[str, ...] = ()
    """Fields of :class:`ExportRequest` beyond the common ones that it honours: ``dynamic``, ``runtime``, ..."""
    shows: tuple[str, ...] = ()
    """Providers that show what is computed on the way (``taps`` of :meth:`Target.open`), the quickest first. A target
    that has any is :class:`Transparent`."""
    devices: tuple[str, ...] = ()
    """Ways to reach a device that is attached to this machine, ``adb`` or ``ios``. A target that has any is
    :class:`Attachable`."""
    threaded: tuple[str, ...] = ()
    """Providers that can be told how many threads to compute with. A target that has any is :class:`Threaded`."""

    def precision(self, name: str) -> Precision:
        return next(p for p in self.precisions if p.name == name)


@dataclass(frozen=True, eq=False)
class Run:
    """One inference. ``ms`` is taken beside the runtime, from the call to the outputs' arrival in CPU memory."""

    outputs: Tensors
    ms: float


class Session(AbstractContextManager["Session"], Protocol):
    """A variant loaded in its own runtime. ``placement`` is None where the runtime does not tell."""

    device: Device
    load_ms: float
    placement: Placement | None

    def run(self, pixel_values: Tensor) -> Run:
        """One inference on float32 NCHW, or on clips."""


@runtime_checkable
class Gated(Protocol):
    """What a session is as well, whose artifact needs more than one comparison to be proved."""

    def gates(self, cases: Sequence[Case], answers: Sequence[Tensors], judged: Parity) -> tuple[Gate, ...]:
        """Examine what was loaded beyond ``judged``, the comparison of its ``answers`` to ``cases`` with PyTorch's."""


@runtime_checkable
class Resident(Protocol):
    """What a session is as well, that runs in this process: what memory it takes can be read from the system."""

    resident: Literal[True]


class Target(Protocol):
    """A back end. Two verbs, because a target that cannot be opened cannot be proved."""

    traits: Traits

    def lower(self, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
        """Write the model's files into the empty folder ``into``: one network at one or more sizes, the first of which
        is the one a reader who knows nothing of ladders finds. Raises ``LoweringFailed``."""

    def open(self, bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
        """Load a variant. ``taps`` are names of intermediate values to be returned beside the outputs.

        Raises ``RuntimeUnavailable`` where this host cannot run it.
        """


@runtime_checkable
class Threaded(Protocol):
    """What a target is as well, whose runtimes can be told how many threads to use: ``vitexport bench`` asks it."""

    def open_threaded(self, bundle: Bundle, precision: str, provider: str, threads: int) -> Session:
        """As :meth:`Target.open`, on a provider of ``traits.threaded``. The session's device states the number."""


@dataclass(frozen=True)
class Attachment:
    """A device that is attached to this machine, and what its user brings to run files on it."""

    way: str
    """One of ``traits.devices``."""
    serial: str | None = None
    """Which one, where there are several."""
    program: Path | None = None
    """What runs a file there, where no such thing comes with the device."""
    threads: tuple[int, ...] = ()
    """Empty: as the target finds right."""
    team: str | None = None
    """Whose signature a program needs there, where the device runs nothing unsigned."""


def the_one(attached: Sequence[_T], meant: Sequence[_T], serial: str | None) -> _T:
    """The only one of ``meant``, which are those of ``attached`` that ``serial`` may mean, by ``str`` what their owner
    knows them by. Raises ``BadRequest``."""
    if not meant:
        raise BadRequest(f"No device has the serial '{serial}'. Attached: {', '.join(map(str, attached))}.")
    if len(meant) > 1:
        names = ", ".join(map(str, meant))
        raise BadRequest(f"{len(meant)} devices are attached ({names}). Name one with --serial.")
    return meant[0]


@runtime_checkable
class Attachable(Protocol):
    """What a target is as well, whose files run on a device that is attached to this machine."""

    def measure_attached(self, bundles: Sequence[Bundle], asked: Attachment) -> tuple[Result, ...]:
        """Of each variant, on each of the device's own providers, under the device's name. A stand-in is called one.

        Raises ``MissingToolchain`` where there is no device or no way to reach it, ``BadRequest`` where it is not clear
        which or what it is, ``WorldFailed`` where it goes away.
        """


@runtime_checkable
class Hosted(Protocol):
    """What a target is as well, whose runtime may have more providers here than it is proven on everywhere."""

    def further_providers(self) -> tuple[str, ...]:
        """Those of this machine: ``vitexport bench`` times them too."""


@runtime_checkable
class Remote(Protocol):
    """What a target is as well, whose bundles a browser on any device runs by itself: ``vitexport bench --device
    browser`` asks it."""

    def device_site(self, bundle: Bundle, sustained_s: float | None = None) -> Site:
        """A site whose page runs every rung, precision and provider of the bundle, each apart from the others and for
        ``sustained_s`` seconds more where they are given, and posts a :class:`DeviceReport` to ``report``, relative to
        itself; on the way, to ``progress``, JSON of ``done``, ``of`` (cells) and ``now`` (words)."""


@dataclass(frozen=True)
class Value:
    """Something that a file computes on the way to its outputs."""

    name: str
    """In this file: what ``taps`` of :meth:`Target.open` takes."""
    shape: tuple[int, ...] | None = None
    """None where it is not known before it is computed."""


@runtime_checkable
class Transparent(Protocol):
    """What a target is as well, whose files show what they compute on the way: ``vitexport diff`` asks it."""

    def values(self, bundle: Bundle, precision: str) -> Mapping[str, Value]:
        """The values of a variant that are floats and no outputs, in the order in which they are computed. The key is
        what the float32 file of the same network calls it: quantisers may rename what they touch."""


@dataclass(frozen=True)
class Finding:
    """An operation of a file that an accelerated path does not take."""

    operation: str
    """``OpType (its name in the file)``"""
    layer: str
    """Of the network, as far as the file tells; ``behind`` a layer where it is what follows. May be empty."""
    why: str
    """What is wrong with it, as the end of a sentence that begins with the operation."""
    rewrite: str
    """What would mend it: a sentence."""


@dataclass(frozen=True)
class Lint:
    """Where a variant's operations would run, told from its file and from what is known of its runtime."""

    accelerator: str
    """What the operations are to run on, as the target calls it."""
    basis: str
    """Where the rules come from, how far they are to be trusted, and of what operations are counted."""
    operations: NonNegative
    """That the runtime has to place."""
    findings: tuple[Finding, ...]
    note: str = ""
    """What else there is to know."""
    unfit: str = ""
    """What it does to the file as a whole because of the findings, such as ``refuses the file``; empty where it runs
    what it takes."""


@runtime_checkable
class Accelerated(Protocol):
    """What a target is as well, whose users' runtime computes on something that does not take every operation:
    ``vitexport inspect --placement`` asks it."""

    def lint(self, bundle: Bundle, precision: str) -> Lint:
        """Examine a variant; nothing is run. Raises ``LoweringFailed`` where its file cannot be read as what it is."""

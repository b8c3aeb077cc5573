"""Which variants are looked at, and in which runtimes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vitexport import registry
from vitexport.contract import Bundle, Variant
from vitexport.errors import BadRequest, did_you_mean


@dataclass(frozen=True, eq=False)
class Cell:
    bundle: Bundle
    precision: str
    provider: str
    runs_on: str | None
    """The provider itself where it shows what it computes, else the quickest that does; None where none does."""

    @property
    def note(self) -> str:
        if self.runs_on in (None, self.provider):
            return ""
        return f"{self.provider} shows nothing of what it computes on the way: these are the values of {self.runs_on}."


def cells(bundles: Sequence[Bundle], precision: str | None, provider: str | None) -> list[Cell]:
    """All that go by these names; None: every precision, and every provider that shows what it computes.

    Raises ``BadRequest`` where there are none.
    """
    known = [(bundle, variant) for bundle in bundles for variant in bundle.rung.variants]
    _check("precision", precision, [variant.precision for _, variant in known])
    _check("provider", provider, [name for bundle, variant in known for name in _providers(bundle, variant)])
    found = [cell for bundle, variant in known for cell in _cells(bundle, variant, precision, provider)]
    if not found:
        raise BadRequest(f"No bundle here has the precision '{precision}' on {provider}. Leave one of them out.")
    return found


def _cells(bundle: Bundle, variant: Variant, precision: str | None, provider: str | None) -> Iterator[Cell]:
    if precision not in (None, variant.precision):
        return
    shows = registry.target(bundle.manifest.target).traits.shows
    offered = _providers(bundle, variant)
    # On a Mac, what shows what Core ML computes is none of its providers: the evaluator.
    asked = [provider] if provider else [name for name in offered if name in shows] or [*shows[:1]] or offered[:1]
    for name in asked:
        if name in (*offered, *shows):
            yield Cell(bundle, variant.precision, name, name if name in shows else next(iter(shows), None))


def _providers(bundle: Bundle, variant: Variant) -> list[str]:
    every = registry.target(bundle.manifest.target).traits.providers
    return [name for name in every if name in (variant.only or every)]


def _check(what: str, name: str | None, known: Sequence[str]) -> None:
    if name is not None and name not in known:
        names = ", ".join(dict.fromkeys(known))
        raise BadRequest(f"No bundle here has the {what} '{name}'.{did_you_mean(name, known)} There are: {names}.")

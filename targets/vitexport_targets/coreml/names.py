"""What the packages of a bundle and their functions are called: written by the lowering, looked for by the proof."""

from __future__ import annotations

from pathlib import Path

from vitexport.contract import Bundle, Size
from vitexport_targets.coreml.mil import Package


def package_name(precision: str, size: Size | None = None) -> str:
    """``size`` where a bundle has a package for each."""
    return f"model_{precision}_{size}.mlpackage" if size else f"model_{precision}.mlpackage"


def function_name(size: Size) -> str:
    """Of a multifunction package."""
    return f"size_{size}"


def tolerance_key(size: Size) -> str:
    """Where a package's metadata keeps the noise that it was held to."""
    return f"vitexport.tolerance.{size}"


def unpacked_key(size: Size) -> str:
    """Where a package in fewer bits keeps the digest of its constants as coremltools unpacked them."""
    return f"vitexport.unpacked_sha256.{size}"


def layout_key(size: Size) -> str:
    """Where a package whose layout was changed keeps what was counted before."""
    return f"vitexport.layout_before.{size}"


def function(package: Package, size: Size) -> str:
    """The one for ``size`` in a multifunction package; else the only one."""
    wanted = function_name(size)
    return wanted if wanted in package.functions else package.default_function


def package(bundle: Bundle, precision: str) -> Path:
    """The folder of a variant at the bundle's size."""
    return bundle.path(bundle.variant(precision).files[0]).parent


def twin(bundle: Bundle, precision: str) -> Path:
    """The float32 package beside a variant, which is there whether it was asked for or not."""
    variant = package(bundle, precision)
    sized = variant.name != package_name(precision)
    return variant.with_name(package_name("fp32", bundle.rung.size if sized else None))

"""The Swift package of a bundle: a typed wrapper around its packages, and the exam that a phone is held to.

``Package.swift`` lies at the bundle's root, since SwiftPM takes resources from nowhere else. What is the same for every
network is in ``swift/`` as it is copied; what depends on it is written here. The sources that need no Apple framework
compile and run on Linux too, where tests compare them with Python's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitexport.contract import CoremlTarget, Preprocessing, SourceModel
from vitexport_targets.coreml import labels
from vitexport_targets.coreml.inputs import NAMES, Kind
from vitexport_targets.coreml.names import function_name, package_name
from vitexport_targets.coreml.sealing import about_output

_TEMPLATES = Path(__file__).parent / "swift"

#: What stands for the module's name in the files that are copied.
_MODULE = "__MODULE__"

#: SwiftPM's words for the systems: the Mac's that came out with each of the phone's.
_SYSTEMS: Mapping[CoremlTarget, tuple[str, str]] = {
    "ios16": ("16.0", "13.0"),
    "ios17": ("17.0", "14.0"),
    "ios18": ("18.0", "15.0"),
}

#: Modules that the sources import, and names in them that a module of the same name would hide.
_TAKEN = frozenset(
    {
        *("Swift", "Foundation", "XCTest", "Testing", "CoreML", "CoreGraphics", "CoreVideo", "CryptoKit", "ImageIO"),
        *("SwiftUI", "UIKit", "VideoToolbox", "PackageDescription", "Tensor", "Size", "Picture", "Precision", "Exam"),
        *("InputSize", "Outputs", "Stored", "Answer", "Failure", "Crop", "Resources", "Resampling", "Preprocessing"),
    }
)

_KEYWORDS = frozenset(
    {
        *("actor", "as", "associatedtype", "await", "break", "case", "catch", "class", "continue", "default", "defer"),
        *("deinit", "do", "else", "enum", "extension", "fallthrough", "false", "fileprivate", "for", "func", "guard"),
        *("if", "import", "in", "init", "inout", "internal", "is", "let", "nil", "operator", "private", "protocol"),
        *("public", "repeat", "rethrows", "return", "self", "static", "struct", "subscript", "super", "switch"),
        *("throw", "throws", "true", "try", "typealias", "var", "where", "while"),
    }
)


@dataclass(frozen=True)
class SwiftPackage:
    """What a network's package is made of."""

    module: str
    sources: Sequence[SourceModel]
    """At each size."""
    precisions: Sequence[str]
    """Those that an app may load, in order of preference."""
    ios: CoremlTarget
    kind: Kind
    multifunction: bool

    @classmethod
    def of(
        cls,
        sources: Sequence[SourceModel],
        precisions: Sequence[str],
        ios: CoremlTarget,
        kind: Kind,
        multifunction: bool,
    ) -> SwiftPackage:
        return cls(module_name(sources[0].name), sources, precisions, ios, kind, multifunction)

    def write(self, into: Path) -> None:
        """``Package.swift`` and ``swift/`` into a bundle's folder."""
        stored = sorted(path.name for path in into.glob("*.mlpackage"))
        (into / "Package.swift").write_text(self._manifest(stored), encoding="utf-8")
        folders = {"Model": f"Sources/{self.module}", "Exam": f"Sources/{self.module}Exam", "Tests": "Tests"}
        for template in sorted(path for path in _TEMPLATES.rglob("*") if path.suffix in (".swift", ".md")):
            folder = folders.get(template.parent.name, template.parent.relative_to(_TEMPLATES).as_posix())
            _put(into / "swift" / folder / template.name, self._filled(template.read_text(encoding="utf-8")))
        _put(into / "swift" / "Sources" / self.module / "Generated.swift", self._generated())

    def _filled(self, template: str) -> str:
        first = self.sources[0]
        filled = {
            _MODULE: self.module,
            "__NAME__": _one_line(first.name),
            "__PRECISION__": f".{identifier(self.precisions[0])}",
            "__OUTPUT__": next(iter(self._properties())),
        }
        for mark, text in filled.items():
            template = template.replace(mark, text)
        return template

    def _packages(self) -> list[str]:
        sizes = [None] if self.multifunction or len(self.sources) == 1 else [source.size for source in self.sources]
        return [package_name(precision, size) for precision in self.precisions for size in sizes]

    def _manifest(self, stored: Sequence[str]) -> str:
        """``Package.swift``. What neither target takes has to be excluded from both: Xcode would compile each of the
        ``stored`` packages into whatever target it lies in."""
        ios, macos = _SYSTEMS[self.ios]
        shipped = self._packages()
        others = ("swift/App", "swift/README.md", "swift/Tests", "verify.py", "MODEL_CARD.md")
        kept_back = [name for name in stored if name not in shipped]
        return _PACKAGE.format(
            name=_one_line(self.sources[0].name),
            module=self.module,
            ios=ios,
            macos=macos,
            resources=_listed(f".copy({literal(name)})" for name in (*shipped, "manifest.json")),
            not_the_models=_listed(map(literal, ("golden", f"swift/Sources/{self.module}Exam", *others, *kept_back))),
            not_the_exams=_listed(map(literal, ("manifest.json", f"swift/Sources/{self.module}", *others, *stored))),
        )

    # ------------------------------------------------------------------------------------------------ Generated.swift

    def _generated(self) -> str:
        return _GENERATED.format(
            name=_one_line(self.sources[0].name),
            precisions=_cases((identifier(name), name) for name in self.precisions),
            first_precision=identifier(self.precisions[0]),
            sizes=_cases((_size_case(source), str(source.size)) for source in self.sources),
            first_size=_size_case(self.sources[0]),
            preprocessing="\n".join(_preprocessing(source) for source in self.sources),
            outputs=self._outputs(),
            takes_picture=str(self.kind == "image").lower(),
            input_name=literal(NAMES[self.kind]),
            package=self._package_name(),
            function=self._function_name(),
        )

    def _properties(self) -> dict[str, str]:
        """What each output is called in Swift -> in the model."""
        named: dict[str, str] = {}
        for output in self.sources[0].outputs:
            name = identifier(output.name)
            while name in (*named, "byName", *self._labels()):
                name = f"{name.strip('`')}Output"
            named[name] = output.name
        return named

    def _labels(self) -> tuple[str, ...]:
        return ("classLabel", "probabilities") if labels.wanted(self.sources[0], self.kind) else ()

    def _outputs(self) -> str:
        about = {output.name: output for output in self.sources[0].outputs}
        declared, read = [], []
        if self._labels():
            declared += ["/// The most probable class.", "public let classLabel: String"]
            said = labels.about_probabilities(self.sources[0].outputs[0])
            declared += [f"/// {said[0].upper()}{said[1:]}.", "public let probabilities: [String: Double]"]
            read += [f"classLabel = try answer.text({literal(labels.LABEL)})"]
            read += [f"probabilities = try answer.probabilities({literal(labels.PROBABILITIES)})"]
        by_name = []
        for name, stored in self._properties().items():
            shape = ", ".join(map(str, about[stored].shape))
            declared += [f"/// ({shape}): {_one_line(about_output(about[stored]))}.", f"public let {name}: Tensor"]
            read.append(f"{name} = try answer.tensor({literal(stored)})")
            by_name.append(f"{literal(stored)}: {name}")
        return _OUTPUTS.format(
            declared="\n    ".join(declared), read="\n        ".join(read), by_name=", ".join(by_name)
        )

    def _package_name(self) -> str:
        stem = package_name("\\(precision.rawValue)").removesuffix(".mlpackage")
        if len(self.sources) > 1 and not self.multifunction:
            return f'"{stem}_\\(size.rawValue)"'
        return f'"{stem}"'

    def _function_name(self) -> str:
        if not self.multifunction:
            return "nil"
        written = function_name(self.sources[0].size)
        return f'"{written.removesuffix(str(self.sources[0].size))}\\(size.rawValue)"'


def module_name(model: str) -> str:
    """``vit_small`` -> ``VitSmall``: the last part of a model's name as a Swift module's."""
    last = re.split(r"[:/]", model)[-1]
    words = re.findall(r"[A-Za-z0-9]+", last)
    name = "".join(word[0].upper() + word[1:] for word in words) or "Model"
    if name[0].isdigit():
        name = f"Model{name}"
    return f"{name}Network" if name in _TAKEN else name


def identifier(text: str) -> str:
    """``last_hidden_state`` -> ``lastHiddenState``; a keyword in backquotes."""
    first, *rest = re.findall(r"[A-Za-z0-9]+", text) or ["value"]
    name = first[0].lower() + first[1:] + "".join(word[0].upper() + word[1:] for word in rest)
    if name[0].isdigit():
        name = f"_{name}"
    return f"`{name}`" if name in _KEYWORDS else name


def literal(text: str) -> str:
    """A Swift string of exactly this text."""
    escapes = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text) + '"'


def _one_line(text: str) -> str:
    """Of a comment: one line, whatever a label holds."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _listed(entries: Iterable[str]) -> str:
    return "\n".join(f"                {entry}," for entry in entries)


def _cases(named: Iterable[tuple[str, str]]) -> str:
    return "\n    ".join(f"case {name} = {literal(value)}" for name, value in named)


def _size_case(source: SourceModel) -> str:
    return f"h{source.size.height}w{source.size.width}"


def _preprocessing(source: SourceModel) -> str:
    how: Preprocessing = source.preprocessing
    resize = how.resize or how.size
    return _PREPROCESSING.format(
        case=_size_case(source),
        height=how.size.height,
        width=how.size.width,
        mean=", ".join(map(_float, how.mean)),
        std=", ".join(map(_float, how.std)),
        interpolation=how.interpolation,
        fit=how.fit,
        resize_height=resize.height,
        resize_width=resize.width,
        rounding={"half-even": "halfEven", "floor": "floor"}[how.crop_rounding],
    )


def _float(value: float) -> str:
    """The shortest decimal that is this float32."""
    return str(np.float32(value))


_PACKAGE = """\
// swift-tools-version:5.9
import PackageDescription

// {name}: a typed wrapper around the Core ML packages beside this file, and the exam that proves them on a device.
// swift/README.md says how.
let package = Package(
    name: "{module}",
    platforms: [.iOS("{ios}"), .macOS("{macos}")],
    products: [
        .library(name: "{module}", targets: ["{module}"]),
        .library(name: "{module}Exam", targets: ["{module}Exam"]),
    ],
    targets: [
        .target(
            name: "{module}",
            path: ".",
            exclude: [
{not_the_models}
            ],
            sources: ["swift/Sources/{module}"],
            resources: [
{resources}
            ]
        ),
        .target(
            name: "{module}Exam",
            dependencies: ["{module}"],
            path: ".",
            exclude: [
{not_the_exams}
            ],
            sources: ["swift/Sources/{module}Exam"],
            resources: [.copy("golden")]
        ),
        .testTarget(name: "{module}Tests", dependencies: ["{module}", "{module}Exam"], path: "swift/Tests"),
    ]
)
"""

_GENERATED = """\
// {name}, as vitexport exported it. Change nothing here: export it again.

/// The precisions that are stored, in order of preference.
public enum Precision: String, CaseIterable, Sendable {{
    {precisions}

    public static let preferred = Precision.{first_precision}
}}

/// The sizes that the network was exported at, height x width.
public enum InputSize: String, CaseIterable, Sendable {{
    {sizes}

    public static let preferred = InputSize.{first_size}

    /// From a photo to the network's input.
    public var preprocessing: Preprocessing {{
        switch self {{
{preprocessing}
        }}
    }}
}}

/// What the network answers.
{outputs}

/// How the packages beside Package.swift are to be opened.
public enum Stored {{
    /// Whether the packages take a picture and normalise it themselves; else the normalised tensor.
    public static let takesPicture = {takes_picture}
    public static let inputName = {input_name}

    public static func package(_ precision: Precision, _ size: InputSize) -> String {{
        {package}
    }}

    /// Where one package holds a function for each size.
    public static func function(_ size: InputSize) -> String? {{
        {function}
    }}
}}
"""

_OUTPUTS = """\
public struct Outputs: Sendable {{
    {declared}

    public init(from answer: some Answer) throws {{
        {read}
    }}

    /// The tensors by the names that the model gives them.
    public var byName: [String: Tensor] {{
        [{by_name}]
    }}
}}"""

_PREPROCESSING = """\
        case .{case}:
            Preprocessing(
                size: Size(height: {height}, width: {width}),
                mean: [{mean}],
                std: [{std}],
                interpolation: .{interpolation},
                fit: .{fit},
                resize: Size(height: {resize_height}, width: {resize_width}),
                cropRounding: .{rounding}
            )"""

"""What uv says when it finds no solution, for people who posted requirements and know nothing of uv's project."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_UNREACHABLE: Final = re.compile(
    r"error sending request|Request failed after|Failed to fetch|network (was|connectivity is) disabled|dns error"
    r"|timed out|authentication credentials|HTTP status (client|server) error",
)
_NO_WHEEL: Final = re.compile(
    r"has no (usable )?wheels|have no (usable )?wheels|no `[^`]*`-compatible wheels|no wheels with a matching"
    r"|does(n't| not) have a source distribution or wheel|is not compatible with Python|does not satisfy Python",
)
_MISSING: Final = re.compile(r"Because (\S+) was not found in the package registry")
PACKAGES: Final = {
    "cv2": "opencv-python-headless",
    "distutils": "setuptools",
    "pil": "Pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Packages that are not called like the module that is imported, by its name; the index has nothing usable there."""
_WORDS: Final = (
    (
        re.compile(
            r" and your project depends on [^,]+, we can conclude that your project's requirements are unsat\w+"
        ),
        "",
    ),
    (re.compile(r"we can conclude that your project and (.+?) are incompatible"), r"they do not fit \1"),
    (re.compile(r"(we can conclude that )?your project's requirements are unsatisfiable"), "no versions satisfy all"),
    (re.compile(r"(we can conclude that )?your requirements are unsatisfiable"), "no versions satisfy all"),
    (re.compile(r"your project depends on|you require"), "the requirements ask for"),
    (re.compile(r" for split \(markers: .*?\)(?=\n|$)"), ""),
    (re.compile(r"`platform_machine[^`]*`-compatible wheels"), "wheels for this platform"),
)


def is_unreachable(text: str) -> bool:
    """Whether the package index, not the requirements, is why uv failed."""
    return _UNREACHABLE.search(_unwrapped(text)) is not None


def is_unsatisfiable(text: str) -> bool:
    """Whether the requirements are why uv failed."""
    text = _unwrapped(text)
    return "No solution found" in text or "source distribution or wheel for the current platform" in text


def lacks_wheels(text: str) -> bool:
    """Whether another Python could make a difference: something has no wheel for this one."""
    return _NO_WHEEL.search(_unwrapped(text)) is not None


def names_unknown_package(text: str) -> bool:
    """Whether the index has no such package at all, for any Python."""
    return _MISSING.search(_unwrapped(text)) is not None


def explain(failures: Mapping[str, str], posted: Iterable[Requirement], added: Iterable[Requirement]) -> str:
    """One paragraph: why, what tracking and serving have to do with it, what to do. `failures`: uv's text by Python."""
    names = {canonicalize_name(requirement.name) for requirement in posted}
    for name in sorted(names & PACKAGES.keys()):
        return f"{name} is what scripts import; its package is called {PACKAGES[name]}."
    for text in failures.values():
        if missing := _MISSING.search(_unwrapped(text)):
            return (
                f"There is no package {missing[1]} on the package index. Check how it is spelt; if it is on another "
                "index, whoever runs the platform can set UV_INDEX."
            )
    # A contradiction says more than a lack of wheels for one of the Pythons.
    contradiction = next((text for text in failures.values() if not lacks_wheels(text)), None)
    text = contradiction or "\n".join(failures.values())
    sentences = [
        f"No versions of the requirements fit together: {clean(text) if contradiction else _by_python(failures)}"
    ]
    if contradiction is None:
        sentences.append("Only packages with a wheel for this platform can be used.")
    if ours := _named(added, names, text):
        sentences.append(f"Tracking and serving need {', '.join(map(str, ours))}.")
    sentences.append("Loosen or change one of the packages named here.")
    return " ".join(sentences)


def _unwrapped(text: str) -> str:
    """On one line: uv breaks lines where they are long, so within any phrase."""
    return " ".join(text.split())


def _by_python(failures: Mapping[str, str]) -> str:
    pythons: dict[str, list[str]] = {}
    for python, text in failures.items():
        pythons.setdefault(clean(text), []).append(python)
    return " ".join(f"(Python {', '.join(found)}) {reason}" for reason, found in pythons.items())


def _named(added: Iterable[Requirement], posted: Collection[str], text: str) -> list[Requirement]:
    """Those of the added requirements that are part of what uv says."""
    return [
        requirement
        for requirement in added
        if re.search(rf"(?<![\w.-]){re.escape(canonicalize_name(requirement.name))}(?![\w.-])", text)
        if requirement.name not in posted or f"{requirement.name}{requirement.specifier}" in text
    ]


def clean(text: str) -> str:
    """The reason without its headline, hints and talk of projects and markers."""
    text = text.partition("No solution found")[2] or text
    text = re.sub(r"(?m)^(hint|\s*hint|Using|Resolved|warning).*$", "", text)
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    text = re.sub(r"^.*?(cause: |╰─▶ |error: )", "", " ".join(text.split()))
    return text.strip().rstrip(".") + "."

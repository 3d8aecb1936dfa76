"""Puts results into docs/performance.md, each between marks of its own, and draws its plots."""

import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "asgard"  # equal results are equal files
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

DOCS = Path(__file__).parents[1] / "docs"


def machine() -> str:
    """One line: what it was measured on, and when."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("mlflow", "pulumi", "uvloop"))
    load = os.getloadavg()[0]
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{time.strftime('%Y-%m-%d')}, {system}, {versions}; load before it {load:.1f}."


def progress(text: str) -> None:
    """Say what is measured next, apart from the results."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def publish(section: str, content: str) -> None:
    """Put `content`, Markdown, in the place of the section's former one."""
    path = DOCS / "performance.md"
    text = path.read_text()
    begin, end = f"<!-- {section}, written by it -->\n", f"<!-- end of {section} -->\n"
    new, count = re.subn(
        f"{re.escape(begin)}.*{re.escape(end)}", lambda _: begin + content + end, text, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"{path} has no place for {section}: {begin.strip()} and {end.strip()}")
    path.write_text(new)


def bars(name: str, title: str, unit: str, values: Mapping[str, float]) -> str:
    """A plot of one value each, on a logarithmic axis; Markdown that shows it."""
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(values) + 1.2))
    drawn = axes.barh(list(values), list(values.values()))
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.set_title(title)
    axes.margins(x=0.2)
    return _save(figure, name, title)


def lines(name: str, title: str, across: str, up: str, values: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A plot of cost against size, both logarithmic; Markdown that shows it."""
    figure, axes = plt.subplots(figsize=(8, 4))
    for label, points in values.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_title(title)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    return _save(figure, name, title)


def _save(figure: Figure, name: str, title: str) -> str:
    (DOCS / "plots").mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(DOCS / "plots" / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
    return f"![{title}](plots/{name}.svg)\n"

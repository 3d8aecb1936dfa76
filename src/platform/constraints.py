"""Known incompatibilities that package metadata does not tell, as data: limits for the resolver, each with its reason.

A limit is left out where the poster names a version of the limited package.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from . import syntax


@dataclass(frozen=True)
class Limit:
    """`requirement` limits a package wherever a package of the lock fits all that is named below it.

    `package`: its name; None: any that depends on the limited one. `versions`: of that package, as in `<2.3`.
    `released_before`: the day from which on the limit is not needed. A release without compiled code counts only where
    the poster pinned it: the newest release of a pure Python package may well be old and still right.
    """

    requirement: str
    reason: str
    package: str | None = None
    versions: str = ""
    released_before: datetime | None = None


NUMPY_2: Final = datetime(2024, 6, 16, tzinfo=UTC)
PANDAS_3: Final = datetime(2026, 1, 21, tzinfo=UTC)

ALWAYS: Final = (
    Limit("skops<0.14", "skops 0.14 refuses tree models, and MLflow saves scikit-learn models with skops"),
)
"""Limits that hold whatever else is in the lock."""

UNDECLARED: Final = tuple(
    Limit(
        "setuptools<81",
        "MLflow before 2.16 imports pkg_resources without asking for the setuptools that has it",
        package=package,
        versions="<2.16",
    )
    for package in ("mlflow", "mlflow-skinny")
)
"""What a package needs and does not say: added where it is in the lock."""

LIMITS: Final = (
    Limit("numpy<2", "releases from before NumPy 2.0 were built against NumPy 1", released_before=NUMPY_2),
    Limit(
        "numpy<2", "torch before 2.3 was built against NumPy 1 and does not say so", package="torch", versions="<2.3"
    ),
    *(
        Limit(
            f"{package}<3.9",
            "MLflow 3.9 and later save PyTorch models with torch.export, which torch before 2.1 does not have",
            package="torch",
            versions="<2.1",
        )
        for package in ("mlflow", "mlflow-skinny")
    ),
    Limit("pandas<3", "releases from before pandas 3.0 were written for pandas 2", released_before=PANDAS_3),
    Limit(
        "scipy<1.16",
        "statsmodels before 0.14.5 imports what SciPy 1.16 removed",
        package="statsmodels",
        versions="<0.14.5",
    ),
    Limit(
        "scikit-learn<1.6",
        "XGBoost before 2.1.4 does not know the estimator tags of scikit-learn 1.6",
        package="xgboost",
        versions="<2.1.4",
    ),
    Limit(
        "scikit-learn<1.8",
        "LightGBM before 4.6 passes an argument that scikit-learn 1.8 removed",
        package="lightgbm",
        versions="<4.6",
    ),
    Limit(
        "setuptools<81",
        "releases from before setuptools 81 may import pkg_resources, which is gone since",
        released_before=datetime(2025, 7, 1, tzinfo=UTC),
    ),
)
"""Limits that depend on what was resolved."""


def always(posted: tuple[Requirement, ...]) -> list[Limit]:
    """The limits to begin with, without those of packages whose version the poster names."""
    named = _named(posted)
    return [limit for limit in ALWAYS if syntax.requirement(limit.requirement).name not in named]


def needed(lock: Mapping[str, Any], posted: tuple[Requirement, ...]) -> list[Limit]:
    """The limits that the content of a uv.lock passes, without those of packages whose version the poster names."""
    packages = [package for package in lock["package"] if "version" in package]
    pinned: set[str] = {canonicalize_name(r.name) for r in posted if any(s.operator == "==" for s in r.specifier)}
    return list(_needed(packages, _named(posted), pinned))


def undeclared(lock: Mapping[str, Any], posted: tuple[Requirement, ...]) -> list[Limit]:
    """What packages of a uv.lock need beside it, without those of packages whose version the poster names."""
    packages, named = [package for package in lock["package"] if "version" in package], _named(posted)
    found = {
        limit.requirement: limit
        for limit in UNDECLARED
        if syntax.requirement(limit.requirement).name not in named
        and any(_is_of(limit, package) for package in packages)
    }
    return list(found.values())


def _named(posted: tuple[Requirement, ...]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in posted if requirement.specifier}


def _needed(packages: list[Mapping[str, Any]], named: set[str], pinned: set[str]) -> Iterator[Limit]:
    versions = {package["name"]: package["version"] for package in packages}
    for limit in LIMITS:
        limited = syntax.requirement(limit.requirement)
        version = versions.get(limited.name)
        if version is None or limited.name in named or limited.specifier.contains(version, prereleases=True):
            continue
        if any(_applies(limit, limited.name, package, pinned) for package in packages):
            yield limit


def _applies(limit: Limit, limited: str, package: Mapping[str, Any], pinned: set[str]) -> bool:
    if limit.package is not None:
        return _is_of(limit, package)
    if not any(dependency["name"] == limited for dependency in package.get("dependencies", ())):
        return False
    wheels = package.get("wheels", ())
    # Private indexes may not tell.
    uploaded = [wheel["upload-time"] for wheel in wheels if "upload-time" in wheel]
    if not uploaded or limit.released_before is None or min(map(_time, uploaded)) >= limit.released_before:
        return False
    return package["name"] in pinned or not all(wheel["url"].endswith("-none-any.whl") for wheel in wheels)


def _is_of(limit: Limit, package: Mapping[str, Any]) -> bool:
    versions = SpecifierSet(limit.versions)
    return package["name"] == limit.package and versions.contains(package["version"], prereleases=True)


def _time(text: str | datetime) -> datetime:
    return text if isinstance(text, datetime) else datetime.fromisoformat(text)

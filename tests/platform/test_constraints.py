"""Limits that the metadata of packages does not tell."""

from typing import Any

import pytest
from packaging.requirements import Requirement

from asgard.platform import constraints

BUILT = "https://files/{}-1-cp311-cp311-manylinux_2_17_x86_64.whl"
PURE = "https://files/{}-1-py3-none-any.whl"


def package(
    name: str, version: str, *depends: str, uploaded: str | None = "2023-06-30T07:00:00Z", wheel: str = BUILT
) -> dict[str, Any]:
    file = {"url": wheel.format(name)} | ({"upload-time": uploaded} if uploaded else {})
    return {
        "name": name, "version": version, "wheels": [file], "dependencies": [{"name": other} for other in depends],
    }  # fmt: skip


def needed(packages: list[dict[str, Any]], *posted: str) -> set[str]:
    found = constraints.needed({"package": packages}, tuple(Requirement(text) for text in posted))
    return {limit.requirement for limit in found}


NUMPY_2 = package("numpy", "2.1.0", uploaded="2024-08-18T00:00:00Z")


def test_a_release_built_before_numpy_2_limits_numpy() -> None:
    assert needed([NUMPY_2, package("scikit-learn", "1.3.0", "numpy")], "scikit-learn==1.3.0") == {"numpy<2"}


def test_a_release_built_after_numpy_2_does_not() -> None:
    recent = package("scikit-learn", "1.6.0", "numpy", uploaded="2024-12-09T00:00:00Z")
    assert needed([NUMPY_2, recent], "scikit-learn") == set()


def test_a_numpy_that_the_poster_names_is_left_alone() -> None:
    packages = [NUMPY_2, package("scikit-learn", "1.3.0", "numpy")]
    assert needed(packages, "scikit-learn==1.3.0", "NumPy>=2") == set()
    assert needed(packages, "scikit-learn==1.3.0", "numpy") == {"numpy<2"}


def test_a_release_from_before_pandas_3_limits_pandas() -> None:
    pandas = package("pandas", "3.0.6", uploaded="2026-10-01T00:00:00Z")
    statsmodels = package("statsmodels", "0.14.5", "pandas", uploaded="2025-07-07T00:00:00Z")
    assert needed([pandas, statsmodels]) == {"pandas<3"}


def test_an_old_numpy_needs_no_limit() -> None:
    assert needed([package("numpy", "1.26.4"), package("scikit-learn", "1.3.0", "numpy")]) == set()


@pytest.mark.parametrize(("posted", "limits"), [("patsy==0.5.6", {"numpy<2"}), ("patsy", set())])
def test_an_old_release_of_pure_python_counts_only_where_it_was_asked_for(posted: str, limits: set[str]) -> None:
    assert needed([NUMPY_2, package("patsy", "0.5.6", "numpy", wheel=PURE)], posted) == limits


def test_an_index_that_tells_no_dates_gives_no_limits_by_date() -> None:
    assert needed([NUMPY_2, package("inhouse", "1.0", "numpy", uploaded=None)]) == set()


@pytest.mark.parametrize(
    ("limited", "package_", "limit"),
    [
        (("numpy", "2.1.0"), ("torch", "2.2.2"), "numpy<2"),
        (("mlflow", "3.17.2"), ("torch", "1.12.1"), "mlflow<3.9"),
        (("scipy", "1.17.0"), ("statsmodels", "0.14.2"), "scipy<1.16"),
        (("scikit-learn", "1.6.1"), ("xgboost", "2.0.3"), "scikit-learn<1.6"),
        (("scikit-learn", "1.8.0"), ("lightgbm", "4.5.0"), "scikit-learn<1.8"),
    ],
)
def test_known_pairs_are_limited_by_version(limited: tuple[str, str], package_: tuple[str, str], limit: str) -> None:
    recent = "2026-01-01T00:00:00Z"
    packages = [package(*limited, uploaded=recent), package(*package_, uploaded=recent)]
    assert needed(packages) == {limit}
    assert needed([packages[0], package(package_[0], "99.0", uploaded=recent)]) == set()


def test_skops_is_limited_from_the_start_unless_the_poster_names_a_version() -> None:
    assert [limit.requirement for limit in constraints.always((Requirement("mlflow"),))] == ["skops<0.14"]
    assert constraints.always((Requirement("skops>=0.14"),)) == []


@pytest.mark.parametrize(
    ("names", "version", "posted", "added"),
    [
        (["mlflow"], "2.9.2", "mlflow==2.9.2", ["setuptools<81"]),
        (["mlflow", "mlflow-skinny"], "2.15.1", "mlflow==2.15.1", ["setuptools<81"]),
        (["mlflow"], "2.16.2", "mlflow==2.16.2", []),
        (["mlflow"], "2.9.2", "setuptools==75", []),
        (["mlflow"], "2.9.2", "setuptools", ["setuptools<81"]),
    ],
)
def test_what_a_package_needs_and_does_not_say_is_added(
    names: list[str], version: str, posted: str, added: list[str]
) -> None:
    lock = {"package": [package(name, version) for name in names]}
    assert [limit.requirement for limit in constraints.undeclared(lock, (Requirement(posted),))] == added


def test_every_limit_has_a_reason() -> None:
    assert all(limit.reason for limit in constraints.ALWAYS + constraints.UNDECLARED + constraints.LIMITS)

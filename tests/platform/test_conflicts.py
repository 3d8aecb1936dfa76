"""What uv says, told to people who know nothing of uv's project. The texts are uv's own."""

import pytest
from packaging.requirements import Requirement

from asgard.platform import conflicts

HEAD = (
    "Using CPython 3.11.7 interpreter at: /usr/bin/python\n"
    "error: No solution found when resolving dependencies for split (markers: platform_machine == 'x86_64')\n"
    "  cause: "
)
POSTED = (Requirement("pandas==3.0.0"), Requirement("numpy==1.24.4"))
ADDED = (Requirement("uvicorn>=0.23"), Requirement("mlflow"))


def test_a_conflict_names_both_packages_without_talk_of_projects_and_markers() -> None:
    text = HEAD + (
        "Because pandas==3.0.0 depends on numpy>=1.26.0 and your project depends on numpy==1.24.4, we can conclude "
        "that your project and pandas==3.0.0 are incompatible.\n"
        "         And because your project depends on pandas==3.0.0, we can conclude that your project's requirements "
        "are unsatisfiable.\n"
    )
    told = conflicts.explain({"3.11": text}, POSTED, ADDED)
    assert "pandas==3.0.0 depends on numpy>=1.26.0" in told
    assert "the requirements ask for numpy==1.24.4" in told
    assert not {"project", "markers", "/usr/bin", "cause:"} & set(told.replace("'s", "").split())
    assert "Tracking and serving" not in told


def test_a_conflict_with_what_serving_needs_says_whose_need_it_is() -> None:
    text = HEAD + (
        "Because your project depends on uvicorn==0.15.0 and uvicorn>=0.23, we can conclude that your project's "
        "requirements are unsatisfiable."
    )
    told = conflicts.explain({"3.11": text}, (Requirement("uvicorn==0.15.0"),), ADDED)
    assert "uvicorn==0.15.0 and uvicorn>=0.23" in told
    assert "Tracking and serving need uvicorn>=0.23." in told


@pytest.mark.parametrize("line_break", [" ", "\n      "])
def test_an_unknown_package_is_called_that(line_break: str) -> None:
    text = HEAD + (
        f"Because scikit-lern was not found in the package{line_break}registry and your project depends on "
        "scikit-lern, we can conclude that your project's requirements are unsatisfiable."
    )
    assert conflicts.names_unknown_package(text)
    assert conflicts.explain({"3.11": text}, (Requirement("scikit-lern"),), ADDED).startswith(
        "There is no package scikit-lern"
    )


def test_the_name_of_a_module_is_answered_by_that_of_its_package() -> None:
    text = HEAD + (
        "Because all versions of sklearn have no usable wheels and your project depends on sklearn, we can conclude "
        "that your project's requirements are unsatisfiable."
    )
    assert conflicts.explain({"3.11": text}, (Requirement("sklearn"),), ADDED) == (
        "sklearn is what scripts import; its package is called scikit-learn."
    )


def test_a_lack_of_wheels_is_told_apart_from_a_conflict() -> None:
    text = HEAD + (
        "Because scikit-learn==0.22 has no usable wheels and your project depends on scikit-learn==0.22, we can "
        "conclude that your project's requirements are unsatisfiable.\n\n"
        "hint: Wheels are required for `scikit-learn` because building from source is disabled "
        "for all packages (i.e., with `--no-build`)\n"
    )
    assert conflicts.lacks_wheels(text)
    told = conflicts.explain({"3.11": text}, (Requirement("scikit-learn==0.22"),), ADDED)
    assert "scikit-learn==0.22 has no usable wheels" in told
    assert "(Python 3.11)" in told
    assert "--no-build" not in told


def test_an_index_out_of_reach_is_not_a_conflict() -> None:
    text = (
        "error: Request failed after 3 retries in 7.3s\n  cause: Failed to fetch: http://127.0.0.1:9/simple/numpy/\n"
        "  cause: error sending request for url (http://127.0.0.1:9/simple/numpy/)\n"
    )
    assert conflicts.is_unreachable(text)
    assert not conflicts.is_unsatisfiable(text)

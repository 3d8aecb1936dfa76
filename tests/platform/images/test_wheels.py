from dataclasses import replace
from pathlib import Path

import pytest

from asgard.errors import RequirementsConflict
from asgard.platform.environments import Lock
from asgard.platform.images import wheels
from asgard.platform.images.base import Base
from asgard.platform.images.contents import Contents

from . import bundles

ARM = "sys_platform == 'linux' and platform_machine == 'aarch64' and platform_python_implementation == 'CPython'"
X86 = ARM.replace("aarch64", "x86_64")


def other(base: Base, *, platform: str = "linux/amd64", glibc: int = 36) -> Base:
    return replace(base, platform=platform, contents=Contents(base.contents.pythons, glibc))


@pytest.fixture(scope="session")
def both(test_cache: Path) -> Lock:
    """A lock for two platforms."""
    return bundles.lock(test_cache, ["httptools", "uvloop==0.22.1"], markers=(X86, ARM))


def test_a_lock_with_wheels_for_the_image_is_fine(base: Base, small_lock: Lock, both: Lock) -> None:
    wheels.check(small_lock, base)
    wheels.check(both, base)
    wheels.check(both, other(base, platform="linux/arm64"))


def test_the_check_asks_nobody(base: Base, small_lock: Lock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    wheels.check(small_lock, base)


def test_a_package_without_a_wheel_for_the_images_glibc_is_named(base: Base, test_cache: Path) -> None:
    # Its only Linux wheels are for glibc 2.28 and newer.
    lock = bundles.lock(test_cache, ["uvloop==0.22.1", "numpy==2.3.5"])
    wheels.check(lock, other(base, glibc=28))
    with pytest.raises(RequirementsConflict) as raised:
        wheels.check(lock, other(base, glibc=27))
    assert "numpy 2.3.5" in raised.value.message
    assert "uvloop" not in raised.value.message
    assert "linux/amd64 with Python 3.11 and glibc 2.27" in raised.value.message
    assert raised.value.stage == "environment"


def test_a_package_of_another_platform_needs_no_wheel_for_this_one(base: Base, test_cache: Path) -> None:
    lock = bundles.lock(test_cache, ["six", "uvloop==0.22.1; platform_machine == 'aarch64'"], markers=(X86, ARM))
    text = (lock.folder / "uv.lock").read_text()
    assert "aarch64.whl" in text
    assert "x86_64.whl" not in text
    wheels.check(lock, base)
    wheels.check(lock, other(base, platform="linux/arm64"))


def test_a_lock_for_another_platform_is_refused(base: Base, small_lock: Lock) -> None:
    with pytest.raises(RequirementsConflict, match="locked for another platform than the image's, linux/arm64"):
        wheels.check(small_lock, other(base, platform="linux/arm64"))


@pytest.mark.parametrize(
    ("glibc", "platform", "named"),
    [
        (36, "linux/amd64", "x86_64-manylinux_2_36"),
        (41, "linux/amd64", "x86_64-manylinux_2_40"),
        (30, "linux/amd64", "x86_64-manylinux_2_28"),
        (19, "linux/arm64", "aarch64-manylinux_2_17"),
    ],
)
def test_uv_is_told_a_platform_that_it_knows(glibc: int, platform: str, named: str, base: Base) -> None:
    assert wheels.uv_platform(other(base, glibc=glibc, platform=platform)) == named

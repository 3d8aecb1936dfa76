"""Fixtures on the stand-in and its moto server, for every folder of tests: named once, in tests/conftest.py."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from pulumi.automation import PulumiCommand

from . import moto_server, serve

if TYPE_CHECKING:
    from .stacks import Stack

REGION: Final = "eu-north-1"


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Address of a moto server, for the whole run."""
    with moto_server.running() as address:
        yield address


@pytest.fixture
def aws(moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An AWS in which nothing is, with credentials for it in this process's environment; gives its address."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in moto_server.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    moto_server.reset(moto)
    return moto


@pytest.fixture
def aws_provider(aws: str) -> Iterator[int]:
    """Port of a stand-in in this process."""
    server, port = serve()
    yield port
    server.stop(0)


@pytest.fixture
def aws_stack(aws_provider: int, pulumi_command: PulumiCommand, tmp_path: Path) -> "Stack":
    """An empty one, of a file backend of its own."""
    from .stacks import Stack  # imports pulumi_aws

    return Stack(tmp_path / "aws-stack", pulumi_command, aws_provider)


@pytest.fixture
def ecr_client(aws: str) -> Any:
    """boto3's: what is really there."""
    import boto3

    return boto3.client("ecr", region_name=REGION)

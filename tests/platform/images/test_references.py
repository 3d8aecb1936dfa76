import pytest

from asgard.errors import InfrastructureFailed
from asgard.platform.images.references import Reference, is_loopback, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("python", Reference("docker.io", "library/python", "latest")),
        ("python:3.11-slim", Reference("docker.io", "library/python", "3.11-slim")),
        ("docker.io/library/python:3.11", Reference("docker.io", "library/python", "3.11")),
        ("someone/python", Reference("docker.io", "someone/python", "latest")),
        ("127.0.0.1:5000/a/b:1", Reference("127.0.0.1:5000", "a/b", "1")),
        ("localhost/a", Reference("localhost", "a", "latest")),
        (f"ghcr.io/a/b@{DIGEST}", Reference("ghcr.io", "a/b", digest=DIGEST)),
        (f"ghcr.io/a/b:1@{DIGEST}", Reference("ghcr.io", "a/b", digest=DIGEST)),
    ],
)
def test_a_name_is_read_as_docker_reads_it(text: str, reference: Reference) -> None:
    assert parse(text) == reference
    assert parse(str(reference)) == reference


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(InfrastructureFailed, match="is not the name of an image"):
        parse("https://host/name")


def test_only_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000", "[::1]"]))
    assert not any(map(is_loopback, ["localhost.example", "10.0.0.1:5000", "127.0.0.1.example", "[fe80::1]:80", "ecr"]))

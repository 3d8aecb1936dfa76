"""The ECR-like registry, used with the platform's own client."""

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgard import naming
from asgard.errors import InfrastructureFailed
from asgard.platform import ecr
from asgard.platform.images import auth, oci, registry

from ...cluster.harness import Prepared
from ...platform.images.registries import running as plain_registry
from .fixtures import REGION
from .registry import EcrRegistry, running
from .stacks import NAME, Stack


@pytest.fixture
def images(prepared: Prepared, aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EcrRegistry]:
    """A registry like ECR, made of a real one and moto."""
    with plain_registry(tmp_path / "registry") as upstream, running(upstream, aws, REGION) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
        monkeypatch.setattr(ecr, "_now", found.now)
        ecr._known.clear()
        yield found
        ecr._known.clear()


def opened(images: EcrRegistry, name: str = NAME) -> registry.Repository:
    return registry.Repository(images.address, name, push=True, credentials=ecr.credentials(REGION))


def put(repository: registry.Repository, tag: str, text: str, folder: Path) -> str:
    """Push an image of one blob; gives its digest."""
    path = folder / text
    path.write_text(text)
    blob = oci.Descriptor("application/vnd.oci.image.config.v1+json", f"sha256:{sha256(text.encode())}", len(text))
    repository.upload(blob, lambda: path, lambda count: None)
    config = {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config, "layers": []}).encode()
    repository.put_manifest(tag, manifest, oci.MANIFEST)
    return f"sha256:{sha256(manifest)}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_an_image_goes_into_a_repository_that_is_there_and_into_no_other(
    images: EcrRegistry, aws_stack: Stack, ecr_client: Any, tmp_path: Path
) -> None:
    with opened(images) as repository, pytest.raises(InfrastructureFailed, match="does not exist") as raised:
        put(repository, "iris-v1-123456", "one", tmp_path)
    assert raised.value.reason == "RepositoryUnknown"
    aws_stack.up()
    with opened(images) as repository:
        digest = put(repository, "iris-v1-123456", "one", tmp_path)
        assert repository.digest("iris-v1-123456") == repository.digest(digest) == digest
        assert repository.tags() == ["iris-v1-123456"]
        assert ecr_client.list_images(repositoryName=NAME)["imageIds"] == [
            {"imageDigest": digest, "imageTag": "iris-v1-123456"}
        ]
        assert not aws_stack.destroy().failed
        aws_stack.up()
        assert repository.digest(digest) is None
        assert repository.tags() == []


def test_a_tag_stays_what_it_is_but_for_the_one_that_serves(
    images: EcrRegistry, aws_stack: Stack, tmp_path: Path
) -> None:
    aws_stack.up()
    with opened(images) as repository:
        first = put(repository, "iris-v1-123456", "one", tmp_path)
        for text in ("two", "one"):
            with pytest.raises(InfrastructureFailed, match=r"TAG_INVALID.*'iris-v1-123456' already exists.*immutable"):
                put(repository, "iris-v1-123456", text, tmp_path)
        assert repository.digest("iris-v1-123456") == first
        assert put(repository, naming.SERVING_TAG, "one", tmp_path) == first
        second = put(repository, naming.SERVING_TAG, "three", tmp_path)
        assert repository.digest(naming.SERVING_TAG) == second != first
        assert repository.digest("iris-v1-123456") == first
        assert repository.delete_manifest(first)
        assert repository.tags() == [naming.SERVING_TAG]


def test_a_token_is_good_for_twelve_hours(images: EcrRegistry, aws_stack: Stack, tmp_path: Path) -> None:
    aws_stack.up()
    with opened(images) as repository:
        put(repository, naming.SERVING_TAG, "one", tmp_path)
        images.advance(timedelta(hours=12, minutes=1))
        with pytest.raises(InfrastructureFailed, match="Your authorization token has expired") as raised:
            repository.tags()
    assert raised.value.reason == "Unauthorized"
    with opened(images) as repository:
        assert repository.tags() == [naming.SERVING_TAG]


def test_nobody_gets_in_without_a_token(images: EcrRegistry, aws_stack: Stack) -> None:
    aws_stack.up()
    answer = httpx.get(f"http://{images.address}/v2/{NAME}/tags/list", trust_env=False)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Basic realm="http://127.0.0.1')
    for user, password in (("AWS", "guessed"), ("somebody", next(iter(images.tokens), ""))):
        wrong = auth.Credentials(user, password)
        with registry.Repository(images.address, NAME, credentials=wrong) as repository:
            with pytest.raises(InfrastructureFailed) as raised:
                repository.tags()
            assert raised.value.reason == "Unauthorized"

"""Names of images, as in `host:port/repository:tag@sha256:…`."""

from dataclasses import dataclass
from ipaddress import ip_address

from docker.auth import resolve_repository_name
from docker.errors import DockerException
from docker.utils import parse_repository_tag

from ...errors import InfrastructureFailed


@dataclass(frozen=True)
class Reference:
    """`registry`: host and port, `docker.io` for Docker Hub's. With a digest the tag says nothing."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        last = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.registry}/{self.repository}{last}"


def parse(text: str) -> Reference:
    """A reference as people write it: without a registry it is Docker Hub's, without a tag `latest`.

    Raises InfrastructureFailed.
    """
    name, last = parse_repository_tag(text)
    digest = last if last and ":" in last else None
    name, tag = parse_repository_tag(name) if digest else (name, last)
    try:
        registry, repository = resolve_repository_name(name)
    except DockerException as error:
        raise InfrastructureFailed(f"{text!r} is not the name of an image: {error}.", reason="InvalidName") from None
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, None if digest else tag or "latest", digest)


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine; only there plain http is spoken."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False

"""The images of models: built of their bundles, and what the provider's Image resource does with them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from .. import naming
from ..errors import InfrastructureFailed, InvalidRequest, ModelNotFound
from ..settings import Settings
from ..stacks.provider.image import ImageRuntime, WantedImage
from ..stacks.spec import Release
from . import artifacts, ecr, environments, journal, pythons, registry, stackfile
from .bundle import digest as bundle_digest
from .environments import Lock, Where
from .images import base, daemon, oci, push, wheels
from .images.base import Base
from .images.build import Image, build
from .images.registry import Repository
from .tracking import Tracking
from .uv_tool import OnLog

_log = structlog.get_logger("asgard.images")


def check_name(settings: Settings, model: str) -> None:
    """Raise InvalidRequest for a name that the registry does not take."""
    if settings.registry == "ecr" and "--" in model:
        raise InvalidRequest("model_name", f"ECR has no repository named {model!r}: leave out the double hyphen.")


def where(settings: Settings, on_log: OnLog) -> Where:
    """Where a model that is to become an image may run: on the Pythons of the base image."""
    versions: tuple[str, ...] = pythons.SUPPORTED
    if base.PLACEHOLDER not in settings.base_image:
        found = _base(settings, "", on_log).contents.pythons
        versions = tuple(version for version in versions if version in found)
    return Where(versions, settings.image_platform)


def check(settings: Settings, lock: Lock, on_log: OnLog) -> None:
    """Raise RequirementsConflict where the image could not have a package of the lock."""
    wheels.check(lock, _base(settings, lock.python, on_log))


def foundation(settings: Settings, lock: Lock, on_log: OnLog) -> dict[str, str]:
    """What the bundle notes of the image's base, so that the same image can be built again: {"base", "platform"}."""
    found = _base(settings, lock.python, on_log)
    return {"base": str(found.reference), "platform": found.platform}


def digest(settings: Settings, bundle: Path, on_log: OnLog) -> str:
    """Of the image of this bundle, which is left in the cache."""
    return _build(settings, bundle, on_log).digest


def load(settings: Settings, tracking: Tracking, model: str, version: int | None, on_log: OnLog) -> str:
    """Have the local Docker daemon take a version's image; gives its name there. None: of the version that serves.

    A version that was deployed on this machine gets one on the base that the settings name. Raises ModelNotFound,
    InvalidRequest, RequirementsConflict, InfrastructureFailed.
    """
    release = _release(settings, tracking, model, version)
    on_log(f"Fetching the bundle of version {release.version} from MLflow")
    with _fetched(settings, tracking, release.bundle) as fetched:
        image, about = _build(settings, fetched, on_log), _about(fetched)
        _require(release, image.digest if "image" in about else bundle_digest(fetched))
        name = f"{naming.repository(model)}:{about['deployment_id']}"
        daemon.load(image, name, settings.cache_dir, on_log)
    return name


def _release(settings: Settings, tracking: Tracking, model: str, version: int | None) -> Release:
    if version is not None:
        return registry.find_release(tracking, model, version)
    spec = stackfile.read_spec(stackfile.path_of(settings.stacks_dir, model))
    if spec is None:
        raise ModelNotFound(model)
    return spec.release


def remove(repository: str, tag: str) -> None:
    """Take one image out of a registry; one that is not there is fine, and so is a registry that allows no deleting."""
    with _opened(repository) as opened:
        if (found := opened.digest(tag)) is not None and not opened.delete_manifest(found):
            _log.warning("the registry allows no deleting: the image stays", repository=repository, tag=tag)


def runtime(
    settings: Settings,
    tracking: Callable[[], Tracking],
    on_log: Callable[[str, str], None],
    on_failure: Callable[[str, InfrastructureFailed], None],
) -> ImageRuntime:
    """What the Image resource works with. `on_log`: gets a model and a line of progress; `on_failure`: and why not."""

    def pushed(wanted: WantedImage) -> None:
        try:
            _push(settings, tracking(), wanted, lambda line: on_log(wanted.model, line))
        except InfrastructureFailed as error:
            on_failure(wanted.model, error)
            raise

    return ImageRuntime(
        push=pushed,
        served=_served,
        delete=lambda repository, model: _delete(repository, model, lambda line: on_log(model, line)),
    )


def _push(settings: Settings, tracking: Tracking, wanted: WantedImage, on_log: OnLog) -> None:
    with _opened(wanted.repository) as repository:
        if repository.digest(wanted.tag) != wanted.digest:
            journal.note_image(settings.data_dir, wanted.model, wanted.repository, wanted.tag)
            with _bundle(settings, tracking, wanted, on_log) as bundle:
                image = _build(settings, bundle, on_log)
            _require(wanted, image.digest)
            push.push(image, repository, wanted.tag, settings.cache_dir, on_log)
        if repository.digest(naming.SERVING_TAG) != wanted.digest:
            content, _ = repository.manifest(wanted.digest)
            repository.put_manifest(naming.SERVING_TAG, content, oci.MANIFEST)


@contextmanager
def _bundle(settings: Settings, tracking: Tracking, wanted: WantedImage, on_log: OnLog) -> Iterator[Path]:
    """The bundle's folder: what the deploy that runs has staged, else a copy from MLflow."""
    staged = journal.folder(settings.data_dir, wanted.model) / "bundle"
    if _deployment_id(staged) == wanted.tag:
        yield staged
        return
    on_log(f"Building the image {wanted.tag} again of {wanted.bundle}")
    with _fetched(settings, tracking, wanted.bundle) as fetched:
        yield fetched


@contextmanager
def _fetched(settings: Settings, tracking: Tracking, uri: str) -> Iterator[Path]:
    """A copy of a bundle from MLflow."""
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="bundle-", dir=settings.cache_dir) as folder:
        fetched = Path(folder) / "bundle"
        artifacts.download(tracking, uri, fetched)
        yield fetched


def _require(wanted: WantedImage | Release, found: str) -> None:
    if found != wanted.digest:
        raise InfrastructureFailed(
            f"What {wanted.bundle} makes is {found} now, the release says {wanted.digest}: the bundle was changed in "
            "MLflow, or another Asgard builds it otherwise. Deploy again."
        )


def _deployment_id(bundle: Path) -> str | None:
    try:
        return str(_about(bundle)["deployment_id"])
    except FileNotFoundError:
        return None


def _about(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "bundle.json").read_text())
    return content


def _served(repository: str, digest: str) -> str | None:
    """What cannot be told stays as the state has it: a registry that is down must not keep the rest from being read."""
    try:
        with _opened(repository) as opened:
            return None if opened.digest(digest) is None else opened.digest(naming.SERVING_TAG) or ""
    except InfrastructureFailed as error:
        if error.reason not in ("RegistryUnavailable", "Unauthorized"):
            raise
        _log.warning("the registry does not say what it has", repository=repository, reason=error.message)
        return digest


def _delete(repository: str, model: str, on_log: OnLog) -> None:
    """All images of the model, and no other: a repository may hold what somebody else has put there."""
    with _opened(repository) as opened:
        tags = [tag for tag in opened.tags() if tag.startswith(f"{model}-v") or tag == naming.SERVING_TAG]
        gone = [opened.delete_manifest(str(found)) for found in {opened.digest(tag) for tag in tags} - {None}]
        if not all(gone):
            on_log(f"The registry {opened.registry} allows no deleting: the images in {repository} stay")


def _build(settings: Settings, bundle: Path, on_log: OnLog) -> Image:
    on = _about(bundle).get("image")
    if on is None:  # it was made for this machine
        lock = environments.read(bundle / "environment")
        check(settings, lock, on_log)
        on = foundation(settings, lock, on_log)
    return build(
        bundle,
        base.resolve(on["base"], on["platform"], settings.cache_dir, on_log),
        settings.cache_dir,
        on_log,
        settings.environment_timeout_seconds,
    )


def _base(settings: Settings, python: str, on_log: OnLog) -> Base:
    return base.resolve(settings.base_image, settings.image_platform, settings.cache_dir, on_log, python)


def _opened(repository: str) -> Repository:
    host, _, name = repository.partition("/")
    region = ecr.region_of(host)
    credentials = None if region is None else ecr.credentials(region)
    return Repository(host, name, push=True, credentials=credentials)

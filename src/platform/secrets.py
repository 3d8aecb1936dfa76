"""The passphrase that encrypts secrets in stack files and state, and Pulumi's format for what it encrypts.

Format: https://github.com/pulumi/pulumi/blob/master/pkg/secrets/passphrase/manager.go
A value is `v1:{nonce}:{ciphertext}` (base64, AES-256-GCM); a salt is `v1:{salt}:{the text "pulumi", encrypted}`.
"""

import hashlib
import os
import secrets
import tempfile
from base64 import b64decode, b64encode
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import InfrastructureFailed
from ..settings import Settings

_ITERATIONS = 1_000_000


class WrongPassphrase(InfrastructureFailed):
    """The passphrase does not open a stack file, or a stack's state."""

    def __init__(self) -> None:
        super().__init__(
            "The passphrase does not open this stack. Set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE to "
            "the one it was made with."
        )


def passphrase_file(settings: Settings) -> Path:
    """The file with the passphrase: `PULUMI_CONFIG_PASSPHRASE_FILE`, else one in the data folder, made if missing.

    Where `PULUMI_CONFIG_PASSPHRASE` is set, which goes before the other as in the Pulumi CLI, the file made holds that.
    One that holds another passphrase stays: stacks may be encrypted with it.
    """
    given = os.environ.get("PULUMI_CONFIG_PASSPHRASE")
    if given is None and (file := os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")):
        return Path(file).absolute()  # the CLI runs in another folder
    path = settings.data_dir / "passphrase"
    if not path.exists():
        _place_if_missing(_written(path, secrets.token_urlsafe(32) if given is None else given), path)
    if given is None or path.read_text() == given:
        return path
    return _written(path, given).replace(path.with_name("passphrase.given"))


def _written(path: Path, phrase: str) -> Path:
    """A new file beside `path`, for its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".passphrase.", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(phrase)
    return Path(temporary)


def _place_if_missing(temporary: Path, path: Path) -> None:
    """Two first starts at once must end with one passphrase."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def passphrase(settings: Settings) -> str:
    """The passphrase as the Pulumi CLI reads it: the variable as it is, else the file. Raises InfrastructureFailed."""
    path = passphrase_file(settings)
    if (given := os.environ.get("PULUMI_CONFIG_PASSPHRASE")) is not None:
        return given
    try:
        return path.read_text().strip()
    except OSError as error:
        raise InfrastructureFailed(
            f"The passphrase of the stacks cannot be read from {path}: {error.strerror}. Set "
            "PULUMI_CONFIG_PASSPHRASE_FILE to a file that holds it."
        ) from error


@lru_cache(maxsize=1024)
def _key(phrase: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", phrase.encode(), salt, _ITERATIONS, 32)


class Cipher:
    """Encrypts and decrypts the secrets of one stack."""

    def __init__(self, phrase: str, encryption_salt: str | None = None) -> None:
        """`encryption_salt`: the stack file's `encryptionsalt`; None makes a new one. Raises WrongPassphrase."""
        if encryption_salt is None:
            salt = secrets.token_bytes(8)
            self._aead = AESGCM(_key(phrase, salt))
            self.encryption_salt = f"v1:{b64encode(salt).decode()}:{self.encrypt('pulumi')}"
        else:
            _, salt_text, check = encryption_salt.split(":", 2)
            self._aead = AESGCM(_key(phrase, b64decode(salt_text)))
            self.encryption_salt = encryption_salt
            self.decrypt(check)

    def encrypt(self, text: str) -> str:
        """The text as a stack file's `secure` value."""
        nonce = secrets.token_bytes(12)
        ciphertext = self._aead.encrypt(nonce, text.encode(), None)
        return f"v1:{b64encode(nonce).decode()}:{b64encode(ciphertext).decode()}"

    def decrypt(self, secure: str) -> str:
        """The text of a `secure` value. Raises WrongPassphrase."""
        _, nonce, ciphertext = secure.split(":", 2)
        try:
            return self._aead.decrypt(b64decode(nonce), b64decode(ciphertext), None).decode()
        except InvalidTag as error:
            raise WrongPassphrase from error

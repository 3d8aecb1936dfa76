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
    """The passphrase does not open a stack file."""


def passphrase_file(settings: Settings) -> Path:
    """The file with the passphrase: `PULUMI_CONFIG_PASSPHRASE_FILE`, else one in the data folder, made if missing.

    Where `PULUMI_CONFIG_PASSPHRASE` is set, which goes before the other as in the Pulumi CLI, the file made holds that.
    """
    given_phrase = os.environ.get("PULUMI_CONFIG_PASSPHRASE")
    if given_phrase is None and (given := os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")):
        return Path(given).absolute()  # the CLI runs in another folder
    path = settings.data_dir / "passphrase"
    if given_phrase is None and path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".passphrase.", dir=path.parent)  # for its owner only
    with os.fdopen(descriptor, "w") as file:
        file.write(given_phrase if given_phrase is not None else secrets.token_urlsafe(32))
    if given_phrase is not None:
        Path(temporary).replace(path)
    else:
        _place_if_missing(Path(temporary), path)
    return path


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
            raise WrongPassphrase(
                "The passphrase does not open this stack file. Set PULUMI_CONFIG_PASSPHRASE or "
                "PULUMI_CONFIG_PASSPHRASE_FILE to the one it was written with."
            ) from error

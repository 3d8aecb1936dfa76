"""What the gRPC face asks of a resource type."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .schema import Properties, Schema

Client = Any
"""boto3's client for ECR."""


@dataclass(frozen=True)
class Resource:
    """One type. Functions may raise botocore's ClientError, or Refused.

    `inputs`: what a program may set; `schema`: with what `complete` adds. `outputs`: what AWS decides.
    """

    token: str
    title: str
    inputs: Schema
    schema: Schema
    outputs: tuple[str, ...]
    problems: Callable[[Properties], list[str]]
    """Inputs that fit the schema -> what is wrong with them together."""
    complete: Callable[[Properties], Properties]
    """Checked inputs -> with what the provider adds to them."""
    normal: Callable[[Properties], Properties]
    """Planned state -> as it is recorded."""
    same: Callable[[str, Any, Any], bool]
    """Property, recorded value, new value -> whether they mean the same although they differ."""
    create: Callable[[Client, Properties], str]
    """Planned state -> id."""
    read: Callable[[Client, str, Properties], Properties | None]
    """Id, recorded state (may be empty) -> what AWS says; None: it is gone."""
    update: Callable[[Client, str, Properties, Properties], None]
    """Id, recorded state, planned state."""
    delete: Callable[[Client, str, Properties], None]
    """Id, recorded state. What is gone is fine."""
    deletes_first: bool = False
    """Whether a replacement always begins with the deletion."""


class Refused(Exception):
    """What the real provider, or AWS, does not do."""


def canonical(text: str) -> str:
    """JSON as the real provider records it."""
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))

"""Stand-in for the aws provider of Pulumi (`pulumi-aws` 7.51): an ECR repository and its lifecycle policy.

It speaks boto3 to a moto server, and to nothing else. What it takes, refuses, defaults, replaces and answers is what
the real provider does for these types, or less. `serve` attaches it in process, `on_path` is its executable form.
"""

from .servicer import on_path, serve

__all__ = ["on_path", "serve"]

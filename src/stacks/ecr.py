"""A model's ECR repository."""

import json

import pulumi
from pulumi_aws import Provider
from pulumi_aws.ecr import (
    LifecyclePolicy,
    Repository,
    RepositoryEncryptionConfigurationArgs,
    RepositoryImageScanningConfigurationArgs,
    RepositoryImageTagMutabilityExclusionFilterArgs,
)

from .. import naming
from .spec import KubernetesConfig, ModelSpec

IMAGES_KEPT = 10
"""The newest ones, for rollback; and the one that serves, should it be older."""


def repository(spec: ModelSpec, target: KubernetesConfig, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
    """Declare it; gives its address, without a tag."""
    provider = Provider("registry", region=target.region, opts=opts)
    on_aws = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(provider=provider))
    made = Repository(
        spec.name,
        name=naming.repository(spec.name),
        # A deployment id stands for one image for good; the tag of what serves moves.
        image_tag_mutability="IMMUTABLE_WITH_EXCLUSION",
        image_tag_mutability_exclusion_filters=[
            RepositoryImageTagMutabilityExclusionFilterArgs(filter=naming.SERVING_TAG, filter_type="WILDCARD")
        ],
        image_scanning_configuration=RepositoryImageScanningConfigurationArgs(scan_on_push=True),
        encryption_configurations=[RepositoryEncryptionConfigurationArgs(encryption_type="AES256")],
        force_delete=True,
        tags={naming.NAME_LABEL: spec.name, "app.kubernetes.io/managed-by": "asgard"},
        opts=on_aws,
    )
    # Spelled as the provider records it.
    policy = json.dumps(_lifecycle(), sort_keys=True, separators=(",", ":"))
    LifecyclePolicy(spec.name, repository=made.name, policy=policy, opts=on_aws)
    address: pulumi.Output[str] = made.repository_url
    return address


def _lifecycle() -> dict[str, object]:
    """Format: https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_parameters.html.

    "An image that matches the tagging requirements of a rule cannot be expired by a rule with a lower priority", and
    the first rule here never has more than its one image: so the image that serves stays, however old it is
    (https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html). A pattern without a wildcard is the
    whole tag; a prefix would also select the deployment ids of a model that is called `serving`.
    """
    return {
        "rules": [
            _rule(1, "The image that serves", 1, tagStatus="tagged", tagPatternList=[naming.SERVING_TAG]),
            _rule(2, f"The newest {IMAGES_KEPT}", IMAGES_KEPT, tagStatus="any"),
        ]
    }


def _rule(priority: int, description: str, count: int, **selection: object) -> dict[str, object]:
    return {
        "rulePriority": priority,
        "description": description,
        "selection": {**selection, "countType": "imageCountMoreThan", "countNumber": count},
        "action": {"type": "expire"},
    }

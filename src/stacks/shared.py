"""The stack `platform`: what models share on a cluster and none of them owns."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pulumi
from pulumi_kubernetes.batch.v1 import CronJob, CronJobSpecArgs, Job, JobSpecArgs, JobTemplateSpecArgs
from pulumi_kubernetes.core.v1 import (
    ConfigMap,
    ConfigMapVolumeSourceArgs,
    ContainerArgs,
    EnvFromSourceArgs,
    EnvVarArgs,
    Namespace,
    PodSecurityContextArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    Secret,
    SecretEnvSourceArgs,
    ServiceAccount,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.rbac.v1 import PolicyRuleArgs, Role, RoleBinding, RoleRefArgs, SubjectArgs

from .. import naming
from . import renewal
from .kubernetes import cluster_provider, restricted
from .spec import PlatformSpec

SCHEDULE: Final = "17 */4 * * *"
"""Three times in the life of an ECR token, so that two runs may fail."""

SCRIPT: Final = "renewal.py"
USER: Final = 65532
"""The unprivileged user that images without one are run as."""


class Platform(pulumi.ComponentResource):
    """Namespace and pull secret. `credentials`: secret; for ECR an access key, else user name and password.

    None: the nodes pull with rights of their own, or need none.
    """

    def __init__(self, spec: PlatformSpec, credentials: pulumi.Output[Mapping[str, str]] | None) -> None:
        super().__init__("asgard:kubernetes:Platform", naming.PLATFORM_STACK)
        provider = cluster_provider(pulumi.ResourceOptions(parent=self))
        opts = pulumi.ResourceOptions(parent=self, provider=provider)
        if spec.creates_namespace:
            namespace = Namespace(
                spec.namespace,
                metadata=ObjectMetaArgs(
                    name=spec.namespace,
                    labels={
                        "app.kubernetes.io/managed-by": "asgard",
                        "pod-security.kubernetes.io/enforce": "restricted",
                        "pod-security.kubernetes.io/warn": "restricted",
                    },
                ),
                opts=opts,
            )
            opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[namespace]))
        if credentials is not None and spec.registry == "ecr":
            _renewed(spec, credentials, opts)
        elif credentials is not None:
            Secret(
                naming.PULL_SECRET,
                metadata=_metadata(spec, naming.PULL_SECRET),
                type="kubernetes.io/dockerconfigjson",
                string_data={".dockerconfigjson": credentials.apply(lambda known: _docker_config(spec, known))},
                opts=opts,
            )
        pulumi.export("namespace", spec.namespace)
        if spec.cluster is not None:
            pulumi.export("cluster", spec.cluster)
        self.register_outputs({})


def _renewed(spec: PlatformSpec, credentials: pulumi.Output[Mapping[str, str]], opts: pulumi.ResourceOptions) -> None:
    """A job in the cluster that writes the pull secret: at once, and again and again whether the API runs or not."""
    account = ServiceAccount(naming.RENEWAL, metadata=_metadata(spec, naming.RENEWAL), opts=opts)
    role = Role(
        naming.RENEWAL,
        metadata=_metadata(spec, naming.RENEWAL),
        rules=[
            # The name of what is to be created cannot be told from a request, so that right has none.
            PolicyRuleArgs(api_groups=[""], resources=["secrets"], verbs=["create"]),
            PolicyRuleArgs(
                api_groups=[""], resources=["secrets"], verbs=["get", "patch"], resource_names=[naming.PULL_SECRET]
            ),
        ],
        opts=opts,
    )
    binding = RoleBinding(
        naming.RENEWAL,
        metadata=_metadata(spec, naming.RENEWAL),
        role_ref=RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="Role", name=naming.RENEWAL),
        subjects=[SubjectArgs(kind="ServiceAccount", name=naming.RENEWAL, namespace=spec.namespace)],
        opts=opts,
    )
    # Named by Pulumi: new content, new names, and with them a new first run.
    script = ConfigMap(
        naming.RENEWAL,
        metadata=_metadata(spec),
        data={SCRIPT: Path(renewal.__file__).read_text()},
        immutable=True,
        opts=opts,
    )
    key = Secret(naming.RENEWAL, metadata=_metadata(spec), string_data=credentials, immutable=True, opts=opts)
    template = _pod(spec, script, key)
    after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[account, role, binding]))
    Job(
        f"{naming.RENEWAL}-first",
        metadata=_metadata(spec),
        spec=JobSpecArgs(backoff_limit=3, template=template),
        opts=after,
    )
    CronJob(
        naming.RENEWAL,
        metadata=_metadata(spec, naming.RENEWAL),
        spec=CronJobSpecArgs(
            schedule=SCHEDULE,
            concurrency_policy="Replace",
            successful_jobs_history_limit=1,
            failed_jobs_history_limit=1,
            job_template=JobTemplateSpecArgs(spec=JobSpecArgs(backoff_limit=6, template=template)),
        ),
        opts=after,
    )


def _pod(spec: PlatformSpec, script: ConfigMap, key: Secret) -> PodTemplateSpecArgs:
    variables = {
        "AWS_REGION": spec.region or "",
        "NAMESPACE": spec.namespace,
        "PULL_SECRET": naming.PULL_SECRET,
        **({} if spec.endpoint is None else {"AWS_ENDPOINT_URL_ECR": spec.endpoint}),
    }
    return PodTemplateSpecArgs(
        metadata=ObjectMetaArgs(labels={naming.NAME_LABEL: naming.RENEWAL}),
        spec=PodSpecArgs(
            service_account_name=naming.RENEWAL,
            restart_policy="OnFailure",
            security_context=PodSecurityContextArgs(
                run_as_non_root=True, run_as_user=USER, seccomp_profile=SeccompProfileArgs(type="RuntimeDefault")
            ),
            containers=[
                ContainerArgs(
                    name="renewal",
                    image=spec.image,
                    command=["python3", f"/renewal/{SCRIPT}"],
                    env=[EnvVarArgs(name=name, value=value) for name, value in variables.items()],
                    env_from=[EnvFromSourceArgs(secret_ref=SecretEnvSourceArgs(name=key.metadata.name))],
                    # In a namespace with a quota there are no pods that do not say what they need.
                    resources=ResourceRequirementsArgs(
                        limits={"cpu": "500m", "memory": "128Mi"}, requests={"cpu": "10m", "memory": "64Mi"}
                    ),
                    security_context=restricted(),
                    volume_mounts=[VolumeMountArgs(name="script", mount_path="/renewal")],
                )
            ],
            volumes=[VolumeArgs(name="script", config_map=ConfigMapVolumeSourceArgs(name=script.metadata.name))],
        ),
    )


def _docker_config(spec: PlatformSpec, credentials: Mapping[str, str]) -> str:
    """Format: https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/."""
    auth = base64.b64encode(f"{credentials['USERNAME']}:{credentials['PASSWORD']}".encode()).decode()
    config: dict[str, Any] = {"auths": {spec.registry.partition("/")[0]: {"auth": auth}}}
    return json.dumps(config)


def _metadata(spec: PlatformSpec, name: str | None = None) -> ObjectMetaArgs:
    return ObjectMetaArgs(name=name, namespace=spec.namespace, labels={"app.kubernetes.io/managed-by": "asgard"})

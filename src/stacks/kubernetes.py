"""Target `kubernetes`: the model answers from pods behind a LoadBalancer."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi_kubernetes import Provider
from pulumi_kubernetes.apps.v1 import (
    Deployment,
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.core.v1 import (
    CapabilitiesArgs,
    ContainerArgs,
    ContainerPortArgs,
    EmptyDirVolumeSourceArgs,
    EnvFromSourceArgs,
    HTTPGetActionArgs,
    LifecycleArgs,
    LifecycleHandlerArgs,
    LocalObjectReferenceArgs,
    PodSecurityContextArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ProbeArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    Secret,
    SecretEnvSourceArgs,
    SecurityContextArgs,
    Service,
    ServicePortArgs,
    ServiceSpecArgs,
    SleepActionArgs,
    TopologySpreadConstraintArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.networking.v1 import (
    NetworkPolicy,
    NetworkPolicyIngressRuleArgs,
    NetworkPolicyPortArgs,
    NetworkPolicySpecArgs,
)
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpecArgs

from .. import naming, quantities
from ..serving.options import PORT
from .image import Image
from .spec import KubernetesConfig, ModelSpec

DRAIN_SECONDS = 5
"""Between a pod's removal from the Service and SIGTERM: for load balancers that have not heard of it yet."""

GRACE_SECONDS = 60
"""For a pod to end, draining and answering what it has begun included."""


class KubernetesModel(pulumi.ComponentResource):
    """One model on a cluster. `environment`: secret, None where there is none; `metrics_port`: as it asks for."""

    def __init__(
        self,
        spec: ModelSpec,
        target: KubernetesConfig,
        environment: pulumi.Output[Mapping[str, str]] | None,
        metrics_port: int | None,
    ) -> None:
        super().__init__("asgard:kubernetes:Model", spec.name)
        own = pulumi.ResourceOptions(parent=self)
        image = Image(spec, _repository(spec, target, own), own)
        ports = {"http": PORT} if metrics_port is None else {"http": PORT, "metrics": metrics_port}
        on_cluster = pulumi.ResourceOptions(parent=self, provider=cluster_provider(own))

        secret = None
        if environment is not None:
            # Named by Pulumi: a new one for new values, and the pods that refer to it are replaced.
            secret = Secret(
                spec.name, metadata=_metadata(spec), string_data=environment, immutable=True, opts=on_cluster
            )
        workload = Deployment(
            spec.name,
            metadata=_metadata(spec, spec.name),
            spec=_deployment(spec, target, image, secret, ports),
            opts=pulumi.ResourceOptions.merge(on_cluster, _patience(target)),
        )
        if spec.deployment.replicas > 1:
            PodDisruptionBudget(
                spec.name,
                metadata=_metadata(spec, spec.name),
                spec=PodDisruptionBudgetSpecArgs(max_unavailable=1, selector=_selector(spec)),
                opts=on_cluster,
            )
        NetworkPolicy(
            spec.name,
            metadata=_metadata(spec, spec.name),
            spec=NetworkPolicySpecArgs(
                pod_selector=_selector(spec),
                policy_types=["Ingress"],
                ingress=[
                    NetworkPolicyIngressRuleArgs(
                        ports=[NetworkPolicyPortArgs(port=name, protocol="TCP") for name in ports]
                    )
                ],
            ),
            opts=on_cluster,
        )
        service = Service(
            spec.name,
            # The provider's own wait for a Service settles for ten seconds more than its address takes.
            metadata=_metadata(spec, spec.name, {"pulumi.com/waitFor": "jsonpath={.status.loadBalancer.ingress}"}),
            spec=ServiceSpecArgs(
                type="LoadBalancer",
                selector={naming.NAME_LABEL: spec.name},
                ports=[ServicePortArgs(name="http", port=80, target_port="http", protocol="TCP")],
            ),
            opts=pulumi.ResourceOptions.merge(on_cluster, _patience(target)),
        )
        self.url = pulumi.Output.all(service.status, workload.id).apply(lambda known: _url(known[0]))
        self.image_uri = image.image_uri
        self.register_outputs({"url": self.url, "image_uri": self.image_uri})


def cluster_provider(opts: pulumi.ResourceOptions) -> Provider:
    """The cluster of the kubeconfig, as kubectl finds it; its context may be set."""
    # Without a value the SDK records the path in KUBECONFIG, which is nothing to another person or in a pod.
    return Provider("cluster", kubeconfig="", context=os.environ.get("ASGARD_KUBE_CONTEXT") or None, opts=opts)


def _repository(spec: ModelSpec, target: KubernetesConfig, opts: pulumi.ResourceOptions) -> pulumi.Input[str]:
    if target.registry != "ecr":
        return naming.repository(spec.name, target.registry)
    from .ecr import repository  # imports pulumi_aws, which nobody else needs

    return repository(spec, target, opts)


def _deployment(
    spec: ModelSpec, target: KubernetesConfig, image: Image, secret: Secret | None, ports: Mapping[str, int]
) -> DeploymentSpecArgs:
    release = spec.release
    return DeploymentSpecArgs(
        replicas=spec.deployment.replicas,
        selector=_selector(spec),
        strategy=DeploymentStrategyArgs(
            type="RollingUpdate", rolling_update=RollingUpdateDeploymentArgs(max_unavailable=0, max_surge=1)
        ),
        progress_deadline_seconds=target.rollout_timeout_seconds,
        revision_history_limit=2,
        template=PodTemplateSpecArgs(
            metadata=ObjectMetaArgs(
                labels=_labels(spec),
                annotations={
                    naming.DEPLOYMENT_ID_ANNOTATION: naming.deployment_id(spec.name, release.version, release.run_id),
                    naming.RUN_ID_ANNOTATION: release.run_id,
                    **_scraped(ports.get("metrics", PORT)),
                },
            ),
            spec=PodSpecArgs(
                automount_service_account_token=False,
                enable_service_links=False,
                image_pull_secrets=[LocalObjectReferenceArgs(name=naming.PULL_SECRET)],
                security_context=PodSecurityContextArgs(
                    run_as_non_root=True, seccomp_profile=SeccompProfileArgs(type="RuntimeDefault")
                ),
                termination_grace_period_seconds=GRACE_SECONDS,
                topology_spread_constraints=[
                    TopologySpreadConstraintArgs(
                        max_skew=1,
                        topology_key="kubernetes.io/hostname",
                        when_unsatisfiable="ScheduleAnyway",
                        label_selector=_selector(spec),
                    )
                ],
                containers=[_container(spec, target, image.reference, secret, ports)],
                volumes=[VolumeArgs(name="tmp", empty_dir=EmptyDirVolumeSourceArgs())],
            ),
        ),
    )


def _scraped(port: int) -> dict[str, str]:
    """Annotations by which Prometheus finds a pod, where it is set up in the usual way."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": "/metrics"}


def _container(
    spec: ModelSpec,
    target: KubernetesConfig,
    image: pulumi.Output[str],
    secret: Secret | None,
    ports: Mapping[str, int],
) -> ContainerArgs:
    limits = spec.deployment
    # A model that nobody asks is idle: a tenth of the CPU is set aside. Of the memory all: it cannot be taken back.
    cpu_request = f"{max(1, quantities.to_millicores(limits.cpu_limit) // 10)}m"
    variables: Sequence[EnvFromSourceArgs] = (
        [] if secret is None else [EnvFromSourceArgs(secret_ref=SecretEnvSourceArgs(name=secret.metadata.name))]
    )
    return ContainerArgs(
        name="model",
        image=image,
        env_from=variables,
        ports=[ContainerPortArgs(name=name, container_port=port, protocol="TCP") for name, port in ports.items()],
        resources=ResourceRequirementsArgs(
            limits={"cpu": limits.cpu_limit, "memory": limits.memory_limit},
            requests={"cpu": cpu_request, "memory": limits.memory_limit},
        ),
        security_context=restricted(),
        startup_probe=_probe(period_seconds=1, failure_threshold=target.rollout_timeout_seconds),
        readiness_probe=_probe(period_seconds=2, failure_threshold=2),
        liveness_probe=_probe(period_seconds=10, failure_threshold=3),
        lifecycle=LifecycleArgs(pre_stop=LifecycleHandlerArgs(sleep=SleepActionArgs(seconds=DRAIN_SECONDS))),
        volume_mounts=[VolumeMountArgs(name="tmp", mount_path="/tmp")],  # noqa: S108 - the only place to write to
    )


def restricted() -> SecurityContextArgs:
    """What the restricted profile asks of every container."""
    return SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        run_as_non_root=True,
        capabilities=CapabilitiesArgs(drop=["ALL"]),
    )


def _probe(*, period_seconds: int, failure_threshold: int) -> ProbeArgs:
    return ProbeArgs(
        http_get=HTTPGetActionArgs(path="/health", port="http", scheme="HTTP"),
        period_seconds=period_seconds,
        timeout_seconds=5,
        failure_threshold=failure_threshold,
    )


def _metadata(spec: ModelSpec, name: str | None = None, annotations: Mapping[str, str] | None = None) -> ObjectMetaArgs:
    # The stack is right where somebody has changed a field by hand; else the API server would tell of a conflict.
    own = {"pulumi.com/patchForce": "true"}
    return ObjectMetaArgs(
        name=name, namespace=spec.namespace, labels=_labels(spec), annotations={**own, **(annotations or {})}
    )


def _labels(spec: ModelSpec) -> dict[str, str]:
    return {naming.NAME_LABEL: spec.name, "app.kubernetes.io/managed-by": "asgard"}


def _selector(spec: ModelSpec) -> LabelSelectorArgs:
    return LabelSelectorArgs(match_labels={naming.NAME_LABEL: spec.name})


def _patience(target: KubernetesConfig) -> pulumi.ResourceOptions:
    """A little longer than the cluster's own deadline, which says more of what is wrong."""
    limit = f"{target.rollout_timeout_seconds + 15}s"
    return pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create=limit, update=limit))


def _url(status: Any) -> str:
    """Where the Service answers: its LoadBalancer's address or host name.

    `up` waits for one; a preview, or what was read while there was none, may lack it.
    """
    given = (status.get("load_balancer") or {}).get("ingress")
    if not given:
        raise pulumi.RunError(
            "The LoadBalancer has no address: see the events of the Service. `pulumi up --skip-preview` waits for one."
        )
    ingress = given[0]
    address = ingress.get("ip") or ""
    return f"http://{ingress.get('hostname') or (f'[{address}]' if ':' in address else address)}"

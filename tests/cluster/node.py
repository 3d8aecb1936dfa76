"""etcd, the control plane and one node, with the settings that work for root in a container, cgroup version 1 or 2."""

import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
from lightkube import Client
from lightkube.resources.core_v1 import Node, ServiceAccount

from ..ports import free_port
from . import access, certificates
from .certificates import Pair
from .leftovers import make_cgroup
from .model import HarnessError
from .packages import CNI_BIN
from .parts import Parts
from .slots import Slot

NODE: Final = "localhost"
"""The node's name, under which the API server reaches the kubelet: neither listens beyond the loopback."""

PAUSE_IMAGE: Final = "test-cluster.local/pause:1"
_SECONDS: Final = 120
_CAP_SYS_ADMIN: Final = 21
"""https://github.com/torvalds/linux/blob/master/include/uapi/linux/capability.h"""


def check_machine() -> None:
    """Raises HarnessError that says what a node needs and this machine has not."""
    needs = {
        "Linux": sys.platform == "linux",
        "root": os.geteuid() == 0,
        "the right to mount (CAP_SYS_ADMIN)": _may_mount(),
        "control groups mounted in /sys/fs/cgroup": any(Path("/sys/fs/cgroup").glob("**/cgroup.procs")),
        "overlayfs in the kernel": "overlay" in _text("/proc/filesystems").split(),
        "/dev/kmsg": Path("/dev/kmsg").exists(),
    }
    if absent := [need for need, met in needs.items() if not met]:
        raise HarnessError(f"A real Kubernetes node cannot run here; it needs {', '.join(absent)}.")


def _may_mount() -> bool:
    effective = re.search(r"^CapEff:\s*(\w+)", _text("/proc/self/status"), re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> _CAP_SYS_ADMIN & 1)


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def start_control_plane(parts: Parts, folder: Path, programs: Path, slot: Slot) -> Path:
    """etcd, API server, controllers and scheduler; returns the administrator's kubeconfig."""
    client_port, peer_port, api_port, controller_port, scheduler_port = (free_port() for _ in range(5))
    etcd, server = f"http://127.0.0.1:{client_port}", f"https://127.0.0.1:{api_port}"
    parts.start(
        "etcd",
        ["etcd", "--data-dir", folder / "etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
         "--listen-peer-urls", f"http://127.0.0.1:{peer_port}"],
    )  # fmt: skip
    pki = folder / "pki"
    ca = _keep(pki / "ca", certificates.authority())
    _keep(
        pki / "server", certificates.server(ca, ["127.0.0.1", NODE, "kubernetes.default.svc", f"{slot.services}.0.1"])
    )
    _keep(pki / "to-kubelet", certificates.client(ca, "kube-apiserver", ["system:masters"]))
    _keep(pki / "tokens", certificates.authority())
    parts.start(
        "apiserver",
        [programs / "kube-apiserver", f"--etcd-servers={etcd}", f"--secure-port={api_port}",
         "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--cert-dir={folder / 'apiserver'}",
         f"--client-ca-file={pki / 'ca.crt'}",
         f"--tls-cert-file={pki / 'server.crt'}", f"--tls-private-key-file={pki / 'server.key'}",
         f"--kubelet-client-certificate={pki / 'to-kubelet.crt'}", f"--kubelet-client-key={pki / 'to-kubelet.key'}",
         f"--kubelet-certificate-authority={pki / 'ca.crt'}", "--kubelet-preferred-address-types=Hostname",
         "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
         "--service-account-issuer=https://kubernetes.default.svc",
         f"--service-account-key-file={pki / 'tokens.key'}",
         f"--service-account-signing-key-file={pki / 'tokens.key'}",
         f"--service-cluster-ip-range={slot.services}.0.0/16"],
    )  # fmt: skip

    def kubeconfig(name: str, user: str, *groups: str) -> Path:
        return access.write(folder / f"{name}.kubeconfig", server, ca, certificates.client(ca, user, groups))

    admin = kubeconfig("admin", "admin", "system:masters")
    kubeconfig("kubelet", f"system:node:{NODE}", "system:nodes")
    controllers = kubeconfig("controllers", "system:kube-controller-manager")
    scheduler = kubeconfig("scheduler", "system:kube-scheduler")
    trust = ssl.create_default_context(cafile=pki / "ca.crt")
    parts.wait(lambda: _is_ready(server, trust), "The API server is ready", _SECONDS)
    parts.start(
        "controllers",
        [programs / "kube-controller-manager", f"--kubeconfig={controllers}", "--leader-elect=false",
         "--bind-address=127.0.0.1", f"--secure-port={controller_port}", f"--cert-dir={folder / 'controllers'}",
         f"--service-account-private-key-file={pki / 'tokens.key'}", "--use-service-account-credentials=true",
         f"--root-ca-file={pki / 'ca.crt'}", "--concurrent-deployment-syncs=5"],
    )  # fmt: skip
    parts.start(
        "scheduler",
        [programs / "kube-scheduler", f"--kubeconfig={scheduler}", "--leader-elect=false",
         "--bind-address=127.0.0.1", f"--secure-port={scheduler_port}", f"--cert-dir={folder / 'scheduler'}"],
    )  # fmt: skip
    return admin


def start_containerd(parts: Parts, folder: Path, slot: Slot) -> Path:
    """Returns its socket."""
    socket = folder / "containerd" / "containerd.sock"
    _make_bridge(slot)
    (folder / "cni").mkdir()
    (folder / "cni" / "pods.conflist").write_text(json.dumps(_pod_network(folder, slot)))
    config = folder / "containerd.toml"
    config.write_text(f"""
version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true  # In a container root may not lower its score, and runc ends without a word.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{folder}/containerd/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_BIN}"
    conf_dir = "{folder}/cni"
""")
    parts.start("containerd", ["containerd", "--config", config])
    parts.wait(socket.exists, "containerd listens", _SECONDS)
    return socket


def start_kubelet(parts: Parts, folder: Path, programs: Path, slot: Slot, containerd: Path) -> None:
    make_cgroup(slot)
    port, health_port = free_port(), free_port()
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": port,
        "healthzPort": health_port,
        "tlsCertFile": str(folder / "pki" / "server.crt"),
        "tlsPrivateKeyFile": str(folder / "pki" / "server.key"),
        "authentication": {"x509": {"clientCAFile": str(folder / "pki" / "ca.crt")}, "anonymous": {"enabled": False}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{containerd}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{slot.cgroup}",
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": False,  # Kubernetes 1.35 refuses version 1 otherwise.
        "failSwapOn": False,
        "evictionHard": {"nodefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "podLogsDir": str(folder / "pod-logs"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [f"{slot.pods}.0.1"],  # Nobody answers there, which a pod learns at once.
    }
    path = folder / "kubelet.json"
    path.write_text(json.dumps(settings))
    parts.start(
        "kubelet",
        [programs / "kubelet", f"--config={path}", f"--kubeconfig={folder / 'kubelet.kubeconfig'}",
         f"--hostname-override={NODE}", f"--node-ip={slot.pods}.0.1", f"--root-dir={folder / 'kubelet'}",
         f"--cert-dir={folder / 'kubelet' / 'pki'}"],
    )  # fmt: skip


def wait_until_ready(parts: Parts, client: Client) -> None:
    """For a node that takes pods, and for what the controllers must have made before the first pod can be posted."""
    parts.wait(lambda: _node_is_ready(client), "The node is ready", _SECONDS)
    parts.wait(lambda: _has_service_account(client), "The default service account is there", _SECONDS)


def _pod_network(folder: Path, slot: Slot) -> dict[str, object]:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": f"{slot.pods}.0.0/16", "gateway": f"{slot.pods}.0.1"}]],
        "routes": [{"dst": f"{slot.services}.0.0/16"}],
        "dataDir": str(folder / "cni-addresses"),
    }
    bridge = {"type": "bridge", "bridge": slot.network, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": slot.network, "plugins": [bridge]}


def _make_bridge(slot: Slot) -> None:
    """On it this machine and the pods reach each other and nothing else; no iptables, no forwarding to turn on."""
    for command in (
        ["ip", "link", "add", slot.network, "type", "bridge"],
        ["ip", "address", "add", f"{slot.pods}.0.1/16", "dev", slot.network],
        ["ip", "address", "add", f"{slot.services}.0.1/32", "dev", slot.network],
        ["ip", "link", "set", slot.network, "up"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise HarnessError(f"The pods' network cannot be made: {' '.join(command)}: {done.stderr.strip()}")


def _keep(path: Path, pair: Pair) -> Pair:
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".crt").write_bytes(pair.certificate)
    path.with_suffix(".key").touch(0o600)
    path.with_suffix(".key").write_bytes(pair.key)
    return pair


def _is_ready(server: str, trust: ssl.SSLContext) -> bool:
    """As it says itself. Requests that it answers before it has made its roles, it answers to nobody else."""
    try:
        return httpx.get(f"{server}/readyz", verify=trust, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _node_is_ready(client: Client) -> bool:
    return any(
        condition.type == "Ready" and condition.status == "True"
        for node in client.list(Node)
        for condition in (node.status and node.status.conditions) or []
    )


def _has_service_account(client: Client) -> bool:
    return any(
        account.metadata and account.metadata.name == "default"
        for account in client.list(ServiceAccount, namespace="default")
    )

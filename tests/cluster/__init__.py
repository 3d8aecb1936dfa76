"""A real one-node Kubernetes for tests: etcd, kube-apiserver, controllers, containerd, kubelet, and pods that run.

Nothing in here is a stand-in but the load balancer, which is what a cloud adds to a cluster. `python -m tests.cluster`
brings one up by hand.
"""

from .model import Cluster, HarnessError

__all__ = ["Cluster", "HarnessError"]

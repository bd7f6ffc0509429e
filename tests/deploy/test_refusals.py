"""Wrong values are refused with a message that names field, value and remedy."""

from __future__ import annotations

import pytest

from tests.deploy.helm_tool import Helm

LOADTEST = "loadtest.enabled=true"
ROUTE = "httpRoute.enabled=true,httpRoute.parentRefs[0].name=public"
CANARY = "httpRoute.canary.serviceName"
ACCELERATE = "training.launcher=accelerate,training.accelerateConfig=/data/fsdp2.yaml"
MIXED = "autoscaling.mode=cpu,autoscaling.cpu.utilization=70"


@pytest.mark.parametrize(
    ("settings", "kubernetes", "parts"),
    [
        # Autoscaling: exactly one
        (f"{MIXED},autoscaling.metrics.running=12", "1.35", ["mode is cpu", "autoscaling.metrics", "fight"]),
        (f"{MIXED},autoscaling.keda.requestsPerPod=12", "1.35", ["autoscaling.keda"]),
        ("autoscaling.metrics.running=12", "1.35", ["mode is none", "autoscaling.metrics"]),
        ("autoscaling.mode=both", "1.35", ["autoscaling", "'none', 'cpu', 'metrics', 'keda'"]),
        ("autoscaling.mode=metrics", "1.35", ["no target", "running, waiting and pending"]),
        ("autoscaling.mode=keda,autoscaling.keda.requestsPerPod=4", "1.35", ["needs both", "serverAddress"]),
        (f"{MIXED},autoscaling.minReplicas=5", "1.35", ["maxReplicas is 4", "minReplicas, 5"]),
        (f"{MIXED},autoscaling.minReplicas=0", "1.35", ["autoscaling/minReplicas", "minimum"]),
        (f"{MIXED},resources.requests.cpu=null", "1.35", ["resources.requests.cpu"]),
        # The model's volume
        ("model.source=image", "1.35", ["model.image.reference is empty"]),
        ("model.source=image,model.image.reference=a:1", "1.30", ["1.31", "model.source copy"]),
        ("model.source=image,model.image.reference=a:1", "1.34", ["feature gate ImageVolume", "featureGate"]),
        (
            "model.source=image,model.image.reference=a:1,model.image.featureGate=true,model.image.subPath=x",
            "1.32",
            ["model.image.subPath", "1.33"],
        ),
        ("model.source=copy", "1.35", ["fromClaim", "fromImage", "exactly one"]),
        ("model.source=copy,model.copy.fromClaim=a,model.copy.fromImage=b", "1.35", ["exactly one"]),
        ("model.source=copy,model.copy.fromImage=b,model.copy.fromPath=x", "1.35", ["absolute"]),
        ("model.source=copy,model.copy.fromClaim=b,model.copy.fromPath=/x", "1.35", ["relative"]),
        ("model.pvc.claimName=", "1.35", ["model.pvc.claimName is empty"]),
        # Rollouts
        ("model.pvc.accessMode=ReadWriteOnce", "1.35", ["ReadWriteOnce", "RollingUpdate", "is down"]),
        ("model.pvc.accessMode=ReadWriteOncePod,strategy=Recreate,replicas=2", "1.35", ["one pod", "is 2"]),
        (f"model.pvc.accessMode=ReadWriteOnce,strategy=Recreate,{MIXED}", "1.35", ["one pod", "cpu"]),
        ("podDisruptionBudget.maxUnavailable=0", "1.35", ["maxUnavailable is 0", "drained"]),
        # Routes
        ("front.serviceName=gateway", "1.35", ["front.paths is empty", "/v1"]),
        ("front.paths={/v2}", "1.35", ["front.serviceName", "admin API"]),
        ("ingress.canaryWeight=5,ingress.nginx=false", "1.35", ["ingress-nginx canary", "httpRoute.canary"]),
        ("httpRoute.enabled=true", "1.35", ["parentRefs is empty"]),
        ("httpRoute.canary.weight=5", "1.35", ["canary.serviceName"]),
        (
            "httpRoute.canary.serviceName=llm-canary-trimaran",
            "1.35",
            ["enabled is false", "no request", "ingress.canaryWeight"],
        ),
        (f"{ROUTE},{CANARY}=llm-trimaran", "1.35", ["the other share", "llm-canary-trimaran"]),
        (f"{ROUTE},httpRoute.weight=0", "1.35", ["both 0", "500"]),
        (f"{ROUTE},httpRoute.weight=0,httpRoute.canary.serviceName=other", "1.35", ["both 0", "500"]),
        (f"{ROUTE},httpRoute.hostnames={{llm.example.com:443}}", "1.35", [":443", "without a port"]),
        (f"{ROUTE},httpRoute.hostnames={{10.0.0.1}}", "1.35", ["hostnames", "10.0.0.1"]),
        (f"{ROUTE},httpRoute.parentRefs[0].sections=https", "1.35", ["'sections' not allowed"]),
        ("httpRoute.enabled=true,httpRoute.parentRefs[0].namespace=a", "1.35", ["parentRefs/0", "name"]),
        ("front.serviceName=gateway,front.paths={/v1/../v2}", "1.35", ["front.paths", "/v1/../v2"]),
        ("server.longestRequestSeconds=100000", "1.35", ["server/longestRequestSeconds", "maximum"]),
        (f"{ROUTE},httpRoute.weight=1000001", "1.35", ["httpRoute/weight", "maximum"]),
        (f"{ROUTE},front.serviceName=gateway,front.paths={{v1}}", "1.35", ["front/paths/0"]),
        # Jobs
        ("loadtest.distributed.locustfile=/a.py", "1.35", ["distributed.workers is 0", "trimaran loadtest"]),
        (f"{LOADTEST},loadtest.duration=6h", "1.35", ["deadlineSeconds is 21600", "6h", "least 22800"]),
        (f"{LOADTEST},loadtest.readySeconds=0,loadtest.duration=5.92h", "1.35", ["at least 21612"]),
        (
            f"{LOADTEST},loadtest.deadlineSeconds=600,loadtest.url=http://a:80,loadtest.duration=301000ms",
            "1.35",
            ["at least 601"],
        ),
        (
            f"{LOADTEST},loadtest.deadlineSeconds=1500,loadtest.distributed.workers=2",
            "1.35",
            ["take 600 s", "1620"],
        ),
        (f"{LOADTEST},server.startSeconds=1200", "1.35", ["readySeconds is 900", "1200 s to start"]),
        (f"{LOADTEST},loadtest.args={{--duration=8h}}", "1.35", ["--duration=8h", "set loadtest.duration"]),
        (f"{LOADTEST},loadtest.args={{--run-time,8h}}", "1.35", ["--run-time", "set loadtest.duration"]),
        ("training.launcher=accelerate", "1.35", ["accelerateConfig", "fsdp2.yaml"]),
        ("training.accelerateConfig=/data/a.yaml", "1.35", ["launcher is torchrun", "/data/a.yaml"]),
        (f"{ACCELERATE},training.nodes=2,training.kind=trainjob", "1.35", ["kind is trainjob"]),
        (ACCELERATE, "1.35", ["one process needs no launcher"]),
        # The schema
        ("server.drainSecond=5", "1.35", ["additional properties 'drainSecond' not allowed"]),
        ("", "1.27", ["kubeVersion", "1.28"]),
        # Formats
        (f"fullnameOverride={36 * 'a'}", "1.35", ["36 characters", "35 are accepted"]),
        ("shm.sizeLimit=1GB", "1.35", ['shm.sizeLimit is "1GB"', "512Mi"]),
        ("training.resources.limits.memory=16 Gi", "1.35", ["training.resources.limits.memory", "quantity"]),
        ("image.digest=abc", "1.35", ['image.digest is "abc"', "sha256:"]),
        ("loadtest.duration=2min", "1.35", ['loadtest.duration is "2min"', "2m"]),
        ("training.run=Nightly", "1.35", ["training.run", "lower-case"]),
    ],
)  # fmt: skip
def test_refused(helm: Helm, settings: str, kubernetes: str, parts: list[str]) -> None:
    message = helm.refusal(*(["--set", settings] if settings else []), kubernetes=kubernetes)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("settings", "kubernetes"),
    [
        ("model.source=image,model.image.reference=a:1", "1.35"),
        ("model.source=image,model.image.reference=a:1,model.image.featureGate=true", "1.31"),
        ("model.source=image,model.image.reference=a:1", "v1.36.2-gke.100"),
        ("model.pvc.accessMode=ReadWriteOnce,strategy=Recreate", "1.35"),
        ("model.source=copy,model.copy.fromClaim=a,model.pvc.accessMode=ReadWriteOnce", "1.35"),
        ("training.nodes=2", "1.35"),
        (f"{ACCELERATE},training.processesPerNode=2", "1.35"),
        (f"{LOADTEST},loadtest.distributed.workers=2", "1.35"),
        (f"{LOADTEST},loadtest.duration=8h,loadtest.deadlineSeconds=0", "1.35"),
        (f"{LOADTEST},loadtest.duration=90.5s,loadtest.deadlineSeconds=1291", "1.35"),
        (f"{LOADTEST},server.startSeconds=1200,loadtest.readySeconds=0", "1.35"),
        (f"{LOADTEST},server.startSeconds=1200,loadtest.url=http://other:8000", "1.35"),
        # Of a load test that is not made, nothing is asked.
        ("loadtest.duration=8h,server.startSeconds=1200", "1.35"),
        (f"{ROUTE},httpRoute.weight=0,httpRoute.canary.serviceName=other,httpRoute.canary.weight=1", "1.35"),
    ],
)
def test_accepted(helm: Helm, settings: str, kubernetes: str) -> None:
    assert helm.manifests("--set", settings, kubernetes=kubernetes)

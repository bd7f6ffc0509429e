"""Objects of other projects (KEDA, the Prometheus operator, Kubeflow Trainer) against those projects' types.

The types are Python models made from the projects' definitions. An object must come back from them as it went
in: a field of a wrong type is refused, one that they do not know is lost. HTTPRoute has none in the package
index: ``test_httproute.py``.
"""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import pytest

from tests.deploy.helm_tool import FOREIGN, Helm, value_sets
from tests.deploy.monitoring.tools import missing
from tests.deploy.objects import Manifest, of_kind

# The module, the class in it.
TYPES = {
    "PodMonitor": ("cloudcoil.models.prometheus_operator.v1", "PodMonitor"),
    "ScaledObject": ("cloudcoil.models.keda.v1alpha1", "ScaledObject"),
    "TrainingRuntime": ("kubeflow_trainer_api.models", "TrainerV1alpha1TrainingRuntime"),
    "TrainJob": ("kubeflow_trainer_api.models", "TrainerV1alpha1TrainJob"),
}
SETS = {"PodMonitor": "cpu", "ScaledObject": "multi-gpu-keda", "TrainingRuntime": "jobs", "TrainJob": "jobs"}


def through(item: Manifest) -> Any:
    """Return an object as its project's type holds it.

    Raises:
        ValueError: a field is missing, or has a wrong type.
    """
    module, name = TYPES[item["kind"]]
    try:
        found: Any = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        missing("crd-models", f"{error}; `make test` installs CHART_TOOLS, which hold it")
    if hasattr(found, "from_dict"):
        return found.from_dict(copy.deepcopy(item)).to_dict()
    return found.model_validate(item).model_dump(mode="json", by_alias=True, exclude_unset=True)


@pytest.fixture(params=sorted(TYPES))
def item(request: pytest.FixtureRequest, helm: Helm) -> Manifest:
    manifests = helm.manifests("--values", value_sets()[SETS[request.param]])
    (found,) = of_kind(manifests, request.param)
    return found


def test_every_field_is_one_that_the_project_knows(item: Manifest) -> None:
    assert through(item) == item


def test_a_typing_error_would_be_found(item: Manifest) -> None:
    item["spec"]["typo"] = 1
    assert through(item) != item


def test_the_kinds_that_are_checked_elsewhere() -> None:
    assert FOREIGN - TYPES.keys() == {"HTTPRoute"}

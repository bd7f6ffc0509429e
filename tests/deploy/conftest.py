"""Fixtures of the chart's tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.helm_tool import Helm, unpack_helm, value_sets


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return unpack_helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session", params=sorted(value_sets()))
def manifests(request: pytest.FixtureRequest, helm: Helm) -> list[dict[str, Any]]:
    """The objects of each value set in turn."""
    return helm.manifests("--values", value_sets()[request.param])

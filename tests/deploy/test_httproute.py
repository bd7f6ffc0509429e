"""HTTPRoute against what the Gateway API says of it: no package has its schema, so what we use stands here.

Written after ``gateway.networking.k8s.io/v1`` in Gateway API 1.2, the first whose standard channel has
``timeouts``. Fields that we do not use are left out, so that a misspelt one is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from tests.deploy.helm_tool import CHART, Helm, value_sets
from tests.deploy.objects import Manifest, of_kind

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
NAME: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 253}
PORT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 65535}


def fields(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def many(items: dict[str, Any], most: int) -> dict[str, Any]:
    """Return the schema of a list that is not empty."""
    return {"type": "array", "minItems": 1, "maxItems": most, "items": items}


PATH = fields(
    ["type", "value"],
    type={"enum": ["Exact", "PathPrefix"]},
    value={
        "type": "string",
        "maxLength": 1024,
        "pattern": r"^/",
        "not": {"pattern": r"//|/\.\.?(/|$)|%2[fF]|#"},
    },
)
# The kind of a backend is Service by default, which needs the port.
BACKEND = fields(
    ["name", "port"], name=NAME, port=PORT, weight={"type": "integer", "minimum": 0, "maximum": 1_000_000}
)
RULE = fields(
    ["matches", "backendRefs"],
    matches=many(fields(["path"], path=PATH), 64),
    backendRefs=many(BACKEND, 16),
    timeouts=fields(["request"], request={"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}),
)
PARENT = fields(
    ["name"], group={"type": "string"}, kind=NAME, namespace=NAME, name=NAME, sectionName=NAME, port=PORT
)
HOST = {"type": "string", "maxLength": 253, "pattern": rf"^(\*\.)?{LABEL}(\.{LABEL})*$"}
ROUTE = fields(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "gateway.networking.k8s.io/v1"},
    kind={"const": "HTTPRoute"},
    metadata=fields(["name", "namespace", "labels"], name=NAME, namespace=NAME, labels={"type": "object"}),
    spec=fields(
        ["parentRefs", "rules"], parentRefs=many(PARENT, 32), hostnames=many(HOST, 16), rules=many(RULE, 16)
    ),
)
ENABLED = "httpRoute.enabled=true,httpRoute.parentRefs[0].name=public"


def check(item: Manifest) -> None:
    jsonschema.Draft202012Validator(ROUTE).validate(item)


def route(helm: Helm, *arguments: str) -> Manifest:
    (found,) = of_kind(helm.manifests(*arguments), "HTTPRoute")
    return found


@pytest.mark.parametrize(
    "settings",
    [
        ENABLED,
        f"{ENABLED},httpRoute.hostnames={{llm.example.com,*.example.org}}",
        f"{ENABLED},httpRoute.parentRefs[0].namespace=gateways,httpRoute.parentRefs[0].sectionName=https",
        f"{ENABLED},httpRoute.weight=95,httpRoute.canary.serviceName=other,httpRoute.canary.weight=5",
        f"{ENABLED},front.serviceName=gateway,front.port=8080,front.paths={{/v1,/health}}",
        f"{ENABLED},server.longestRequestSeconds=86400",
    ],
)
def test_every_route_is_one_that_the_gateway_api_knows(helm: Helm, settings: str) -> None:
    check(route(helm, "--set", settings))


def test_the_routes_of_the_value_sets_too(helm: Helm) -> None:
    for name in ("everything", "multi-gpu-keda"):
        check(route(helm, "--values", str(value_sets()[name])))


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(typo=1),
        lambda spec: spec.pop("parentRefs"),
        lambda spec: spec["rules"][0].update(timeout="5s"),
        lambda spec: spec["rules"][0]["timeouts"].update(request="300000s"),
        lambda spec: spec["rules"][0]["matches"][0]["path"].update(type="Prefix"),
        lambda spec: spec["rules"][0]["backendRefs"][0].update(port="http"),
        lambda spec: spec["rules"][0]["backendRefs"][0].update(weight="95"),
    ],
    ids=["field", "parents", "timeouts", "duration", "path type", "port name", "weight as text"],
)
def test_a_mistake_would_be_found(helm: Helm, change: Callable[[Any], Any]) -> None:
    item = copy.deepcopy(route(helm, "--set", ENABLED))
    change(item["spec"])
    with pytest.raises(jsonschema.ValidationError):
        check(item)


def test_its_backends_are_services_with_that_port(helm: Helm) -> None:
    manifests = helm.manifests("--set", ENABLED)
    (backend,) = of_kind(manifests, "HTTPRoute")[0]["spec"]["rules"][0]["backendRefs"]
    ports = {
        item["metadata"]["name"]: [port["port"] for port in item["spec"]["ports"]]
        for item in of_kind(manifests, "Service")
    }
    assert backend["port"] in ports[backend["name"]]


def test_weights_are_shares_of_both(helm: Helm) -> None:
    canary = "httpRoute.weight=95,httpRoute.canary.serviceName=llm-canary-trimaran,httpRoute.canary.weight=5"
    (rule,) = route(helm, "--set", f"{ENABLED},{canary}")["spec"]["rules"]
    shares = {one["name"]: one["weight"] for one in rule["backendRefs"]}
    assert shares == {"llm-trimaran": 95, "llm-canary-trimaran": 5}
    # The name is that of the service which a release called llm-canary makes.
    names = [one["metadata"]["name"] for one in of_kind(helm.manifests(release="llm-canary"), "Service")]
    assert "llm-canary-trimaran" in names


def test_a_canary_may_have_the_values_of_the_first_release(helm: Helm) -> None:
    settings = "httpRoute.canary.serviceName=llm-canary-trimaran,networkPolicy.routedByAnotherRelease=true"
    assert not of_kind(helm.manifests("--set", settings, release="llm-canary"), "HTTPRoute")


def test_the_guide_says_which_version_it_needs() -> None:
    assert "Gateway API 1.2" in (CHART / "README.guide.md").read_text(encoding="utf-8")

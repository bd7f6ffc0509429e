"""The reader that the other tests trust."""

from __future__ import annotations

from tests.deploy.monitoring.promql import Selector, selectors, substitute


def test_metrics_are_told_from_functions_labels_and_numbers() -> None:
    expression = """
      sum by (namespace, model) (rate(a_total{outcome=~"x|y",model!="m"}[5m])) / 1e6
      and on (instance) group_left (version) job:b:ratio1h unless (c > bool 14.4) or vector(0)
    """
    assert selectors(expression) == [
        Selector("a_total", (("outcome", "=~", "x|y"), ("model", "!=", "m"))),
        Selector("job:b:ratio1h"),
        Selector("c"),
    ]


def test_variables_of_grafana_get_values() -> None:
    assert substitute('rate(a{model=~"$model"}[$__rate_interval])', "10s") == 'rate(a{model=~".+"}[10s])'

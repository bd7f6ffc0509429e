"""The verdict as JUnit XML, which every CI shows beside the unit tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from loadtests.report.lines import check_lines

__all__ = ["junit_xml"]


def junit_xml(results: Mapping[str, Any]) -> str:
    """Return one test case per limit and per comparison; a run that does not count is an error.

    Args:
        results: the content of ``results.json``.
    """
    lines = check_lines(results)
    verdict, seconds = results["verdict"], f"{results['window']['seconds']:.3f}"
    counts = {
        "tests": len(lines) + 1,
        "failures": sum(not line.passed for line in lines),
        "errors": int(bool(verdict["invalid"])),
    }
    texts = {name: str(count) for name, count in counts.items()}
    suites = ElementTree.Element("testsuites", texts)
    suite = ElementTree.SubElement(
        suites, "testsuite", {"name": "load test", "timestamp": results["started"], "time": seconds, **texts}
    )
    run = ElementTree.SubElement(suite, "testcase", {"classname": "load test", "name": "valid run"})
    if verdict["invalid"]:
        ElementTree.SubElement(run, "error", {"message": "; ".join(verdict["invalid"])})
    for line in lines:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "load test", "name": line.name})
        if not line.passed:
            ElementTree.SubElement(case, "failure", {"message": line.text})
    ElementTree.indent(suites)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
    )

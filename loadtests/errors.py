"""The exceptions a user of the load tests can cause, in one tree.

::

    LoadTestError              printed as one or two lines, exit code 2
    ├── ConfigError            a setting is malformed, out of range or clashes with another
    ├── PromptFileError        a line of the prompt file cannot be used (names file and line)
    ├── TraceFileError         a line of the file of arrival times cannot be used (names file and line)
    ├── EndpointError          nothing answers at the URL, or the model there cannot be tested
    ├── BaselineError          the run to compare with cannot be used, or was another load
    └── OutputError            the results cannot be written

A request that fails during the run is none of these: it is a measurement (``failures.py``).
Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

__all__ = [
    "BaselineError", "ConfigError", "EndpointError", "LoadTestError", "OutputError", "PromptFileError",
    "TraceFileError",
]  # fmt: skip


class LoadTestError(Exception):
    """Root of everything a user can cause. The message says what, where and the remedy."""


class ConfigError(LoadTestError):
    """A setting is malformed, out of range, or clashes with another one."""


class PromptFileError(LoadTestError):
    """A line of the prompt file cannot be used; the message names the file and the line."""


class TraceFileError(LoadTestError):
    """A line of the file of arrival times cannot be used; the message names the file and the line."""


class EndpointError(LoadTestError):
    """Nothing answers at the URL, or the model there is not ready or speaks another contract."""


class BaselineError(LoadTestError):
    """The run to compare with cannot be used, or was another load; the message names what differs."""


class OutputError(LoadTestError):
    """The output directory exists already or cannot be written."""

"""The exceptions a user can cause, in one tree.

::

    TrimaranError                  printed as one or two lines, exit code 2
    ├── ConfigError                a setting is unknown, out of range or clashes with another
    ├── DataError                  a row of a data file cannot be used (names file and line)
    ├── CheckpointError            a checkpoint cannot be read or written
    │   ├── ManifestError          the manifest is missing, unreadable or disagrees with the files
    │   └── UnsupportedCheckpoint  the checkpoint is sound, but this operation cannot take it
    ├── DeployError                a deployment cannot be written or started
    ├── PromptError                a prompt cannot be turned into token ids
    └── ServingError               exporting, starting or asking a server failed
        ├── ExportError            the model repository cannot take this version
        ├── ServerError            tritonserver cannot be found, started or reached
        └── RequestError           one generation request is wrong; only that request fails

Anything else that escapes is a bug of ours: a traceback and exit code 3.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeployError",
    "ExportError",
    "ManifestError",
    "PromptError",
    "RequestError",
    "ServerError",
    "ServingError",
    "TrimaranError",
    "UnsupportedCheckpoint",
]


class TrimaranError(Exception):
    """Root of everything a user can cause. The message says what, where and the remedy."""


class ConfigError(TrimaranError):
    """A setting is unknown, out of range, or clashes with another one."""


class DataError(TrimaranError):
    """A row of a data file cannot be used; the message names the file and the line."""


class CheckpointError(TrimaranError):
    """A checkpoint cannot be read or written."""


class ManifestError(CheckpointError):
    """The manifest is missing, unreadable, or disagrees with the files beside it."""


class UnsupportedCheckpoint(CheckpointError):
    """The checkpoint is sound, but the operation asked for cannot take it."""


class DeployError(TrimaranError):
    """A deployment cannot be written or started."""


class PromptError(TrimaranError):
    """A prompt cannot be turned into token ids."""


class ServingError(TrimaranError):
    """Exporting to, starting or asking a server failed."""


class ExportError(ServingError):
    """The model repository cannot take this version."""


class ServerError(ServingError):
    """tritonserver cannot be found, started or reached."""


class RequestError(ServingError):
    """One generation request is wrong; only that request fails."""

"""Why a peer has no figures: it goes into the table and never ends the run."""

from __future__ import annotations

__all__ = ["PeerFailure"]


class PeerFailure(Exception):
    """A peer cannot be installed, started or measured here; the message is the reason, on one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())

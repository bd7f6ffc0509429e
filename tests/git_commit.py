"""A git repository with one commit, for what asks git which source it has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["TIME", "commit"]

TIME = "2026-05-01T12:00:00+00:00"


def commit(folder: Path) -> str:
    """Make ``folder`` a repository with all its files in one commit of ``TIME``; return its hash."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    environment = {
        **os.environ,
        "GIT_COMMITTER_DATE": TIME,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *who, *arguments],
            cwd=folder, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "All")
    return git("rev-parse", "HEAD")

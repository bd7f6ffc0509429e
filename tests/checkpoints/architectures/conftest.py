from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints.architectures.published import published_config, write_published


@pytest.fixture(scope="session")
def published_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DeepSeek-MoE in float32 under its published names. Do not change it."""
    return write_published(tmp_path_factory.mktemp("deepseek") / "published", published_config())

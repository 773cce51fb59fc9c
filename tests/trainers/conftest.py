"""Shared by the trainer tests: one thread, the toy method on the path, tiny runs of WGAN-GP."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # toy.py, whatever pytest's import mode


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small():
    """WGAN-GP with networks of a few thousand weights."""
    from ganops.methods import recipe

    tiny = {"generator.width": 4, "critic.width": 4, "critic.hidden": 8, "generator.z_dim": 8}
    return recipe("wgan-gp").replace(n_critic=2, **tiny)


@pytest.fixture
def files_of():
    """Contents of every file under a folder, by relative path."""

    def read(folder) -> dict[str, bytes]:
        root = Path(folder)
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    return read

"""Every row of docs/second_order.md's generated tables, computed; and the page itself."""

from __future__ import annotations

import re

import conventions
import pytest
import torch


@pytest.mark.parametrize("row", conventions.CONVENTIONS, ids=lambda row: row.code)
def test_the_stated_relation_holds(row):
    s = conventions.setting()
    theirs, ours = row.theirs(s), row.ours(s)
    assert theirs > 0
    if row.within is None:
        assert abs(theirs / ours - 1) > 0.1
        return
    torch.testing.assert_close(ours, theirs, rtol=row.within, atol=0)
    found, wanted = (torch.autograd.grad(t, s.weights, allow_unused=True) for t in (ours, theirs))
    assert any(g is not None for g in found)
    for a, b in zip(found, wanted):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=10 * row.within * b.abs().max().item())


def test_norms_lie_on_both_sides_of_the_centre():
    """Otherwise one-sided and two-sided could be mixed up unseen."""
    s = conventions.setting()
    assert s.norms(s.between).min() < 1 < s.norms(s.between).max()


def test_one_norm_over_the_batch_is_too_large_by_the_root_of_its_size():
    s = conventions.setting()
    s.critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 1)).double()
    ratio = s.grad(s.real).norm() / s.norms(s.real)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0))


LAYERS = [(kind, name) for kind, layers in conventions.LAYERS.items() for name in layers]


@pytest.mark.parametrize(("kind", "name"), LAYERS)
def test_layers_send_what_the_page_says(kind, name):
    assert conventions.sent(conventions.LAYERS[kind][name]) == kind


def test_the_page_shows_these_tables():
    assert conventions.PAGE.read_text() == conventions.page_with_tables(), (
        "run python tests/ops/conventions.py --write"
    )


def test_the_page_names_files_and_functions_that_exist():
    text = conventions.PAGE.read_text()
    for name in re.findall(r"`((?:tests|benchmarks|ganops)/[\w/]+\.py)`", text):
        assert (conventions.PAGE.parents[1] / name).is_file(), name
    for name in re.findall(r"`ops\.(\w+)", text):
        assert hasattr(conventions.ops, name), name

"""Critics that are one chain of linear layers: `loss_and_r1` runs them as one autograd node."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ganops import ops

B = 5


def loss(scores: Tensor) -> Tensor:
    """Mixes samples, so that each has a weight of its own."""
    return nn.functional.softplus(-scores).mean() + scores.flatten().cumsum(0).square().mean()


class Reused(nn.Module):
    """One layer twice, activations in place, shapes changed on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(6, 4), nn.Linear(4, 4, bias=False)
        self.last, self.act = nn.Linear(4, 1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.again(self.act(self.first(x.reshape(B, 6)))))
        scores: Tensor = self.last(self.again(h).reshape(B, 2, 2).flatten(1))
        return scores


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.LeakyReLU(0.2), nn.Linear(4, 3),
                         nn.Hardtanh(), nn.Linear(3, 1), nn.Flatten(0))  # fmt: skip


def frozen() -> nn.Module:
    """Its first layer keeps no input, and takes the general way."""
    critic = plain()
    critic[1].weight.requires_grad_(False)
    return critic


def frozen_bias() -> nn.Module:
    critic = plain()
    critic[3].bias.requires_grad_(False)
    return critic


def bent_scores() -> nn.Module:
    return nn.Sequential(plain(), nn.LeakyReLU(0.1))


@pytest.mark.parametrize("build", [plain, frozen, frozen_bias, Reused, bent_scores])
@pytest.mark.parametrize("part", ["both", "loss", "penalty"])
def test_numbers_are_those_of_autograd(build: Callable[[], nn.Module], part: str) -> None:
    torch.manual_seed(1)
    critic = build().double()
    x = torch.randn(B, 2, 3, dtype=torch.float64)
    params = [p for p in critic.parameters() if p.requires_grad]
    gamma, weight = (0.0 if part == "loss" else 0.7), (0.0 if part == "penalty" else 1.0)

    def run(engine: str) -> list[Tensor]:
        total = ops.loss_and_r1(critic, x, lambda s: weight * loss(s), gamma=gamma, engine=engine)
        grads = torch.autograd.grad(total, params, allow_unused=True)
        return [total, *(torch.zeros_like(p) if g is None else g for g, p in zip(grads, params))]

    torch.testing.assert_close(run("shared"), run("autograd"))


def nodes(total: Tensor) -> set[str]:
    seen, stack = set(), [total.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack.extend(n for n, _ in node.next_functions)
    return {type(node).__name__ for node in seen}


@pytest.mark.parametrize("build", [plain, frozen_bias, Reused, bent_scores])
def test_a_chain_is_one_node(build: Callable[[], nn.Module]) -> None:
    total = ops.loss_and_r1(build(), torch.randn(B, 2, 3), loss, gamma=1.0, engine="shared")
    found = nodes(total)
    assert "ChainBackward" in found
    assert "SharedInputBackward" not in found


def test_what_is_no_chain_is_not() -> None:
    rows = nn.Sequential(nn.Linear(3, 1), nn.Flatten(), nn.Linear(2, 1))  # (B, 2, 3): three dims
    total = ops.loss_and_r1(rows, torch.randn(B, 2, 3), loss, gamma=1.0, engine="shared")
    assert "ChainBackward" not in nodes(total)


def test_a_loss_without_a_gradient_sends_biases_nothing() -> None:
    critic, x = plain(), torch.randn(B, 2, 3)
    total = ops.loss_and_r1(critic, x, lambda s: s.detach().sum(), gamma=1.0, engine="shared")
    biases = torch.autograd.grad(total, [critic[1].bias, critic[5].bias], allow_unused=True)
    assert biases == (None, None)


def test_retained_gradients_are_refused() -> None:
    class Retains(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x)
            y.retain_grad()
            return y

    with pytest.raises(RuntimeError, match="hooks"):
        ops.loss_and_r1(Retains(), torch.randn(B, 3), loss, gamma=1.0, engine="shared")

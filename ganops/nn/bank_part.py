"""A few discriminators of a bank at a time, on the bank's own memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .bank import DiscriminatorBank


class BankPart:
    """Some of a bank's discriminators, on the bank's own memory: (k, B, ...) -> (k, B).

    Its parameters are leaves of their own, so that a backward's memory is that of the part; their
    gradients are written into the bank's `.grad`, which this makes where there is none.
    """

    def __init__(self, bank: DiscriminatorBank, start: int, stop: int, trainable: bool) -> None:
        self.bank, self.K = bank, stop - start
        self.takes_a_batch_each = True
        self._start, self._stop, self._trainable = start, stop, trainable

    def __call__(self, x: Tensor, *, shared: bool = False) -> Tensor:
        whole = self._trainable and self.K == self.bank.K
        return self.bank._scores(self.bank.tensors() if whole else self._leaves(), x, shared)

    def _leaves(self) -> dict[str, Tensor]:
        leaves = {}
        for name, t in self.bank.tensors().items():
            leaf = t.detach()[self._start : self._stop]
            if self._trainable and t.requires_grad and torch.is_grad_enabled():
                leaf.requires_grad_()
                if t.grad is None:
                    t.grad = torch.zeros_like(t)
                leaf.grad = t.grad[self._start : self._stop]
            leaves[name] = leaf
        return leaves

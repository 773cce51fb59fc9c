"""What happens when a loss stops being a number: `error`, `skip` or `rollback`.

`error` costs no synchronisation: a flag stays on the device and is read with the statistics at log
intervals and before a checkpoint is written. `skip` and `rollback` read one flag per update, which
waits for the device each time.
"""

from __future__ import annotations

import torch
from torch import Tensor


class NonFiniteError(RuntimeError):
    """A NaN or an infinity in training, and the policy says to stop or its limit is reached."""


class RollBack(Exception):  # noqa: N818 - not an error but a request
    """Raised inside a step to go back to the last checkpoint."""


class Guard:
    """Watches losses and, where it synchronises anyway, gradients."""

    def __init__(self, policy: str, limit: int, device: torch.device) -> None:
        self.policy, self.limit, self.device = policy, limit, device
        self._skips = 0
        self.forget()

    @property
    def first_bad(self) -> Tensor:
        """0-d int64: step of the first non-finite loss since the last read, or -1."""
        return self._first

    def forget(self) -> None:
        self._first = torch.full((), -1, dtype=torch.int64, device=self.device)

    def allows(self, loss: Tensor, gradients: list[Tensor], step: int) -> bool:
        """Watch one update; False if it must be left out. Raises RollBack or NonFiniteError."""
        if self.policy == "error":
            bad = ~torch.isfinite(loss.detach())
            self._first = torch.where(bad & (self._first < 0), step, self._first)
            return True
        norms = torch.stack(torch._foreach_norm(gradients)) if gradients else loss.detach()
        if bool(torch.isfinite(loss.detach()) & torch.isfinite(norms).all()):
            self._skips = 0
            return True
        if self.policy == "rollback":
            raise RollBack
        self._skips += 1
        if self._skips > self.limit:
            raise NonFiniteError(
                f"non-finite loss or gradient at step {step}, {self._skips} times in a row "
                f"(train.nan_limit is {self.limit})"
            )
        return False

"""ADA's controller: how much to augment, from how sure the discriminator is of reals."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .. import ops
from ..ops import AdaPolicy, AugmentPolicy


class AdaptiveAugment(nn.Module):
    r"""`ops.ada_augment` with a probability p that follows the discriminator's overfitting.

    .. math:: p \leftarrow \mathrm{clamp}\left(p + \mathrm{sign}(r - t)
              \frac{\text{samples seen}}{1000\,\text{kimg}}, 0, 1\right),
              \quad r = \mathrm{mean\ sign}\, D(\text{reals})

    p starts at 0 and is in the state_dict, with what the running interval has seen. Forward
    augments (every image that D sees, reals and fakes, also in the generator's step) and reads no
    number on the host. Call `observe(real_logits)` for every batch of (augmented) reals, before any
    scaling of the loss, then `update()`: every `interval`-th call changes p.

    Args:
        policy: name, `AdaPolicy`, or an `AugmentPolicy` that has one (its p is not used).
        target: t, in [-1, 1].
        kimg: thousands of reals in which p can go from 0 to 1; 500, 100 for transfer learning.
        interval: batches between changes of p.
        batch: reals per batch over all ranks; None: what was observed.

    Shapes: those of `ops.ada_augment`; real_logits of any shape, floating, not empty. Under
    torch.distributed the counts are summed over all ranks, which must call `update()` together.
    The original code does not clamp p at 1.

    Raises:
        ValueError: an argument out of range, or logits that are empty or not floating.
        TypeError: target, kimg or logits of another type; update() with p cast to a half type.

    Source: Karras et al. 2020, arXiv 2006.06676, and its code.

    Example:
        >>> augment = AdaptiveAugment(interval=1, kimg=1)
        >>> augment.observe(torch.ones(64, 1))
        >>> augment.update()
        >>> round(augment.p.item(), 4)
        0.064
    """

    p: Tensor
    seen: Tensor

    def __init__(
        self,
        policy: str | AdaPolicy | AugmentPolicy = "ada-bgc",
        target: float = 0.6,
        kimg: float = 500,
        interval: int = 4,
        batch: int | None = None,
    ) -> None:
        super().__init__()
        for name, number in (("target", target), ("kimg", kimg)):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise TypeError(f"AdaptiveAugment: expected {name} as a number, got {number!r}")
        if not -1 <= target <= 1:
            raise ValueError(f"AdaptiveAugment: expected target in [-1, 1], got {target}")
        if not (kimg > 0 and math.isfinite(kimg)):
            raise ValueError(f"AdaptiveAugment: expected kimg > 0 and finite, got {kimg}")
        for name, value in (("interval", interval), ("batch", batch)):
            if (name, value) != ("batch", None) and (not isinstance(value, int) or value < 1):
                raise ValueError(f"AdaptiveAugment: expected {name} of at least 1, got {value}")
        given = policy.ada if isinstance(policy, AugmentPolicy) else policy
        if given is None:
            raise ValueError(f"AdaptiveAugment: expected a policy with ada, got {policy}")
        self.policy = given if isinstance(given, AdaPolicy) else AdaPolicy.preset(given)
        self.target, self.kimg, self.interval, self.batch = target, kimg, interval, batch
        self.register_buffer("p", torch.zeros((), dtype=torch.float64))
        # Of this interval: the sum of signs, how many, and of how many images.
        self.register_buffer("seen", torch.zeros(3, dtype=torch.float64))
        self._batches = 0

    def forward(
        self,
        x: Tensor,
        *,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        offset: int | None = None,
    ) -> Tensor:
        """Augments x with the present p; arguments as in `ops.ada_augment`."""
        y = ops.ada_augment(x, self.policy, self.p, generator=generator, seed=seed, offset=offset)
        return y  # type: ignore[return-value]

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        """Counts the signs of a batch of D's logits of reals, on their device."""
        if not isinstance(real_logits, Tensor):
            raise TypeError(f"AdaptiveAugment: expected logits as a tensor, got {real_logits!r}")
        if real_logits.numel() == 0 or not real_logits.is_floating_point():
            raise ValueError(
                "AdaptiveAugment: expected floating logits of at least one real, got "
                f"{tuple(real_logits.shape)}, {real_logits.dtype}"
            )
        images = real_logits.shape[0] if real_logits.dim() else 1
        self.seen[0] += real_logits.detach().sign().sum(dtype=torch.float64)
        self.seen[1] += real_logits.numel()
        self.seen[2] += images

    @torch.no_grad()
    def update(self) -> None:
        """Ends a batch; at every `interval`-th, moves p and starts to count anew.

        Nothing is read by the host. Where nothing was observed, p stays.
        """
        if self.p.dtype not in (torch.float64, torch.float32):
            raise TypeError(
                "AdaptiveAugment: expected p in float64 or float32, as its small steps are lost in "
                f"others, got {self.p.dtype}: leave this module out of .half() and .bfloat16()"
            )
        self._batches += 1
        if self._batches < self.interval:
            return
        self._batches = 0
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.seen)
        signs, count, images = self.seen.unbind()
        if self.batch is not None:
            images = torch.full_like(images, self.batch * self.interval)
        step = torch.sign(signs / count - self.target) * images / (self.kimg * 1000)
        self.p.copy_((self.p + torch.where(count > 0, step, 0.0)).clamp(0, 1))
        self.seen.zero_()

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._batches)

    def set_extra_state(self, state: Tensor) -> None:
        self._batches = int(state)

    def extra_repr(self) -> str:
        return (
            f"target={self.target}, kimg={self.kimg}, interval={self.interval}, batch={self.batch}"
        )

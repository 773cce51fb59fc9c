"""A bank of discriminators spread over the ranks of a torch.distributed group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from .bank import DiscriminatorBank

_DIGEST = 1 << 16  # numbers of the images that ranks compare


class ShardedBank(DiscriminatorBank):
    r"""K discriminators over the ranks of a group, each rank with its own of them.

    Rank r of W holds discriminators r K // W to (r + 1) K // W - 1, the range `members`; `total` is
    the group's K, and `K` the rank's own number of them. It is a `DiscriminatorBank` of its own
    members: it takes their views, its parameters are for an optimiser of the rank's, and no
    parameter or its gradient leaves the rank. Do not wrap it in DistributedDataParallel, which
    would write rank 0's members over the others'.

    The generator is replicated: every rank makes the same images from the same latents.
    `losses.bank_g_backward(bank, views, images=images)` sums dL/dimages over the ranks by one
    all-reduce, so that every rank's generator gets the gradient of all K; both functions of
    `ganops.losses` return the losses of all K on every rank. All ranks must call them together.

    Discriminators are numbered 0 to K - 1 over all ranks in `unbind`, `member_state_dict` and
    `load_member_state_dict`, which work on the rank that has the one asked for; `state_dict()`
    holds the rank's own.

    Args:
        make_discriminator, K, execution: as in `DiscriminatorBank`; K at least the number of ranks.
            The factory is called for the rank's own members only.
        seed: as there, and needed: an int s or K ints, so that discriminator k begins as the same
            whatever the number of ranks.
        group: None is the default group.

    Raises:
        ValueError: torch.distributed has not begun, a process outside of the group, fewer
            discriminators than ranks, no seed; a discriminator of another rank.
    """

    def __init__(
        self,
        make_discriminator: Callable[[], nn.Module],
        K: int,
        *,
        seed: int | Sequence[int],
        group: Any = None,
        execution: str = "auto",
    ) -> None:
        if isinstance(K, bool) or not isinstance(K, int):
            raise TypeError(f"ShardedBank: expected K as an int, got {K!r}")
        if not (distributed.is_available() and distributed.is_initialized()):
            raise ValueError(
                "ShardedBank: expected torch.distributed to have begun (torchrun, and "
                "init_process_group); one process has DiscriminatorBank"
            )
        rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
        if rank < 0:
            raise ValueError("ShardedBank: expected a process of the group, got one outside of it")
        if ranks > K:
            raise ValueError(
                f"ShardedBank: expected a discriminator or more for each of {ranks} ranks, got K "
                f"of {K}"
            )
        if seed is None:
            raise ValueError(
                "ShardedBank: expected a seed, without which ranks may build the same "
                "discriminators, got None"
            )
        seeds = [seed + k for k in range(K)] if isinstance(seed, int) else list(seed)
        if len(seeds) != K:
            raise ValueError(f"ShardedBank: expected {K} seeds, got {len(seeds)}")
        own = range(rank * K // ranks, (rank + 1) * K // ranks)
        self.total, self.group = K, group
        super().__init__(
            make_discriminator, len(own), seed=[seeds[k] for k in own], execution=execution
        )
        self.members = own

    def of_all(self, own: Tensor) -> Tensor:
        """(total, ...) values of all discriminators, of (K, ...) of the rank's. No graph."""
        everyones = own.new_zeros(self.total, *own.shape[1:])
        everyones[self.members.start : self.members.stop] = own.detach()
        distributed.all_reduce(everyones, group=self.group)
        return everyones

    @contextmanager
    def summing(self, images: Tensor | None) -> Iterator[None]:
        """In it, a backward through `images` goes on with the sum of all ranks' gradients."""
        if images is None or not images.requires_grad:
            raise ValueError(
                "ShardedBank: expected images with a graph to the generator, whose gradient is "
                f"summed over ranks, got {'none' if images is None else 'some without a graph'}"
            )
        self._refuse_different(images)
        sums = 0

        def summed(gradient: Tensor) -> Tensor:
            nonlocal sums
            sums += 1
            total = gradient.clone(memory_format=torch.contiguous_format)
            distributed.all_reduce(total, group=self.group)
            return total

        handle = images.register_hook(summed)
        try:
            yield
        finally:
            handle.remove()
        if sums != 1:
            raise ValueError(
                "ShardedBank: expected views made from the images, got views without a graph to "
                "them; the generator's gradients are this rank's alone"
            )

    def extra_repr(self) -> str:
        own = f"{self.members.start} to {self.members.stop - 1}"
        return f"{own} of {self.total}, execution={self.execution!r}"

    @torch.no_grad()
    def _refuse_different(self, images: Tensor) -> None:
        """Other latents on other ranks would give a gradient of nothing, without a sign of it."""
        some = images.detach().flatten()[:_DIGEST].float()
        signs = torch.arange(len(some), device=some.device, dtype=some.dtype).cos()
        digests = some.new_zeros(3, distributed.get_world_size(self.group))
        digests[:, distributed.get_rank(self.group)] = torch.stack(
            [some @ signs, some.norm(), some.new_tensor(images.numel())]
        )
        distributed.all_reduce(digests, group=self.group)
        dots, norms, sizes = digests
        # Replicas may differ by rounding; not finite ones are for the caller's losses to show.
        if sizes.max() > sizes.min() or dots.max() - dots.min() > 1e-3 * norms.max():
            raise ValueError(
                "ShardedBank: expected the same images on every rank, got different ones; draw the "
                "generator's weights and latents from the same seed on all ranks"
            )

    def _index(self, k: int) -> int:
        if not -self.total <= k < self.total:
            raise ValueError(f"ShardedBank: expected one of {self.total} discriminators, got {k}")
        k %= self.total
        if k not in self.members:
            raise ValueError(
                f"ShardedBank: expected one of this rank's discriminators, {self.members.start} to "
                f"{self.members.stop - 1}, got {k}"
            )
        return k - self.members.start

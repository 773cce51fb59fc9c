"""K discriminators in one module: their weights stacked, all run by one call a layer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from .bank_members import batchable, build, put
from .bank_part import BankPart
from .bank_rules import ByRules

_EXECUTIONS = ("auto", "batched", "loop")


class DiscriminatorBank(nn.Module):
    r"""K discriminators of one architecture, run together: (K, B, ...) -> (K, B).

    Equivalent to K separate modules, each on its own batch: scores, gradients of every order and
    the steps of an elementwise optimiser (Adam) are theirs, to rounding. Parameters and buffers are
    stacked along a leading K under the names that one discriminator gives them, so that an
    optimiser has one entry for each. The number of calls does not depend on K, neither forward nor
    in the first or second backward; convolutions run grouped or as batched products, whichever was
    faster for the shape (docs/bank.md).

    The member's own code runs once, under torch.func.vmap; convolutions, linear layers, norms and
    spectral norm have rules of their own, and sub-modules of `ganops.nn` count as torch's. Batch
    statistics are each discriminator's own. Dropout draws other masks for each, from the global
    generator, and so other ones than K separate modules would.

    Args:
        make_discriminator: called K times without arguments, returns a torch.nn.Module on a batch.
        K: at least 1.
        seed: an int s builds discriminator k under torch.manual_seed(s + k), a sequence of K ints
            under each of these; the generator is then left as it was. None: as it stands.
        execution: "batched", or an error that names what cannot be. "loop": one discriminator after
            the other. "auto": batched, or else a loop, with one warning that says why.

    Shapes: x is (K, B, ...), batch k for discriminator k, or with shared=True (B, ...), one batch
    for all, which a first convolution then reads once. Scores are (K, B) where the discriminator
    gives one number a sample ((B,), (B, 1), (B, 1, 1, 1)), else (K, B, ...).

    Derivatives: those of the layers; `ops.conv2d`'s, of every order, for convolutions. Memory kept
    for backward: K times that of one; `part` runs a few of the K at a time.

    Penalties: ``ops.gradient_penalty(bank, real, fake, per_discriminator=True)`` is (K,), from
    images (K, B, ...).

    Raises:
        ValueError: K below 1, seeds of another number, discriminators of different architecture or
            that share tensors, tensors outside of parameters and buffers, x of another leading
            size, scores that are not one row a sample, an unknown execution.
        TypeError: the factory's results or the scores are of another type.
        RuntimeError: execution="batched" cannot serve; a buffer is replaced, not written to.

    Source: Neyshabur et al. 2017, arXiv 1705.07831; card random_projection_gan.

    Example:
        >>> bank = DiscriminatorBank(lambda: torch.nn.Linear(2, 1), 3, seed=0)
        >>> bank(torch.zeros(3, 5, 2)).shape, bank.weight.shape
        (torch.Size([3, 5]), torch.Size([3, 1, 2]))
    """

    takes_a_batch_each = True  # what the penalties of ganops.ops ask

    def __init__(
        self,
        make_discriminator: Callable[[], nn.Module],
        K: int,
        *,
        seed: int | Sequence[int] | None = None,
        execution: str = "auto",
    ) -> None:
        super().__init__()
        if isinstance(K, bool) or not isinstance(K, int):
            raise TypeError(f"DiscriminatorBank: expected K as an int, got {K!r}")
        if K < 1:
            raise ValueError(f"DiscriminatorBank: expected K of at least 1, got {K}")
        if not callable(make_discriminator) or isinstance(make_discriminator, nn.Module):
            raise TypeError(
                "DiscriminatorBank: expected make_discriminator as a function that returns a "
                f"module, got {type(make_discriminator).__name__}"
            )
        if execution not in _EXECUTIONS:
            raise ValueError(
                f"DiscriminatorBank: expected execution 'auto', 'batched' or 'loop', got "
                f"{execution!r}"
            )
        self.K, self.execution = K, execution
        self.members = range(K)  # of all there are, those of this process
        member = build(make_discriminator, K, seed)
        plain = copy.deepcopy(member).to("meta")  # code and settings alone
        # In a tuple, so that they are no sub-modules: the tensors are named as the factory does.
        self._code = (batchable(member), plain)
        self._proven = False
        kept = set(member.state_dict())
        for name, child in member.named_children():
            if hasattr(self, name):
                raise ValueError(f"DiscriminatorBank: the name {name} of a layer is the bank's own")
            self.add_module(name, child)
        for name, p in member.named_parameters(recurse=False):
            self.register_parameter(name, p)
        for name, b in member.named_buffers(recurse=False):
            self.register_buffer(name, b, persistent=name in kept)

    def forward(self, x: Tensor, *, shared: bool = False) -> Tensor:
        """Scores (K, B) of x, (K, B, ...), or (B, ...) with shared=True."""
        return self._scores(self.tensors(), x, shared)

    def tensors(self) -> dict[str, Tensor]:
        """Stacked parameters and buffers by name."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def part(self, start: int, stop: int, *, trainable: bool = True) -> BankPart:
        """Discriminators start to stop - 1 as a function; see `BankPart`. trainable=False: its
        scores have no graph to parameters, as a generator's step wants it."""
        if not 0 <= start < stop <= self.K:
            raise ValueError(
                f"DiscriminatorBank: expected a part within 0 and {self.K}, got {start} to {stop}"
            )
        return BankPart(self, start, stop, trainable)

    def parts(
        self, chunk: int | None, *, trainable: bool = True
    ) -> Iterator[tuple[slice, BankPart]]:
        """The bank in parts of `chunk` discriminators (the last may have fewer), with slices."""
        if chunk is not None and chunk < 1:
            raise ValueError(f"DiscriminatorBank: expected chunk of at least 1, got {chunk}")
        step = self.K if chunk is None else chunk
        for start in range(0, self.K, step):
            stop = min(start + step, self.K)
            yield slice(start, stop), self.part(start, stop, trainable=trainable)

    def of_all(self, own: Tensor) -> Tensor:
        """Values of all discriminators; a `ShardedBank` gathers those of other ranks."""
        return own

    def summing(self, images: Tensor | None) -> AbstractContextManager[None]:
        """Nothing here: a `ShardedBank` sums the gradient to the images over ranks in it."""
        return nullcontext()

    def unbind(self, k: int) -> nn.Module:
        """Discriminator k as the factory makes it: a plain module with copies of its tensors."""
        k = self._index(k)
        module = copy.deepcopy(self._synced())
        put(module, {name: _copy(t[k]) for name, t in self.tensors().items()})
        return module

    member = unbind

    def member_state_dict(self, k: int) -> dict[str, Tensor]:
        """Copies of what discriminator k's own state_dict would hold."""
        k = self._index(k)
        return {name: _copy(t[k]) for name, t in self.state_dict().items()}

    @torch.no_grad()
    def load_member_state_dict(self, k: int, state_dict: Mapping[str, Tensor]) -> None:
        """Writes one discriminator's state_dict into place k; keys and shapes must be all there."""
        k, own = self._index(k), self.state_dict()
        if own.keys() != state_dict.keys():
            odd = sorted(own.keys() ^ state_dict.keys())
            raise ValueError(
                f"DiscriminatorBank: expected the state_dict of one discriminator, got one that "
                f"differs in {', '.join(odd[:3])}{' and more' if len(odd) > 3 else ''}"
            )
        for name, t in state_dict.items():
            if t.shape != own[name].shape[1:]:
                raise ValueError(
                    f"DiscriminatorBank: expected {name} of shape {tuple(own[name].shape[1:])}, "
                    f"got {tuple(t.shape)}"
                )
        for name, t in state_dict.items():
            own[name][k].copy_(t)

    def train(self, mode: bool = True) -> DiscriminatorBank:
        super().train(mode)
        if hasattr(self, "_code"):
            self._code[0].training = mode
        return self

    def extra_repr(self) -> str:
        return f"K={self.K}, execution={self.execution!r}"

    def _index(self, k: int) -> int:
        if not -self.K <= k < self.K:
            raise ValueError(f"DiscriminatorBank: expected one of {self.K} discriminators, got {k}")
        return k % self.K

    def _scores(self, tensors: dict[str, Tensor], x: Tensor, shared: bool) -> Tensor:
        members = next((len(t) for t in tensors.values()), self.K)
        if not isinstance(x, Tensor):
            raise TypeError(f"DiscriminatorBank: expected x as a tensor, got {type(x).__name__}")
        if shared:
            if x.dim() == 0:
                raise ValueError("DiscriminatorBank: expected x as (B, ...), got a single number")
            batch = x.shape[:1]
        elif x.dim() < 2 or len(x) != members:
            raise ValueError(
                f"DiscriminatorBank: expected x of shape ({members}, B, ...), a batch for each "
                f"discriminator, got {tuple(x.shape)}; one batch for all takes shared=True"
            )
        else:
            batch = x.shape[1:2]
        y = self._run(tensors, x, shared)
        if not isinstance(y, Tensor):
            raise TypeError(
                "DiscriminatorBank: expected discriminators to return a tensor, got "
                f"{type(y).__name__}"
            )
        if y.shape[1:2] != batch:
            raise ValueError(
                f"DiscriminatorBank: expected scores of shape ({batch[0]}, ...) from each "
                f"discriminator, got {tuple(y.shape[1:])}"
            )
        return y.reshape(y.shape[:2]) if y[:1, :1].numel() == 1 else y

    def _run(self, tensors: dict[str, Tensor], x: Tensor, shared: bool) -> Any:
        if self.execution == "loop":
            return self._looped(tensors, x, shared)
        if self._proven:
            return self._batched(tensors, x, shared)
        # The first call tells whether torch can batch this code; what it moved must not move twice.
        buffers = {name: t.detach().clone() for name, t in self.named_buffers()}
        try:
            with warnings.catch_warnings():
                # torch loops over what it has no rule for, with this warning.
                warnings.filterwarnings("error", message="There is a performance drop")
                y = self._batched(tensors, x, shared)
        except Exception as error:
            with torch.no_grad():
                for name, t in self.named_buffers():
                    t.copy_(buffers[name])
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if self.execution == "batched":
                raise RuntimeError(
                    f"DiscriminatorBank: this discriminator cannot be batched ({why}); "
                    "execution='loop' runs one after the other"
                ) from error
            y = self._looped(tensors, x, shared)  # raises by itself where the call was wrong
            warnings.warn(
                f"DiscriminatorBank: runs its {self.K} discriminators one after the other, as they "
                f"cannot be batched: {why}",
                stacklevel=4,
            )
            self.execution = "loop"
            return y
        self._proven = True
        return y

    def _batched(self, tensors: dict[str, Tensor], x: Tensor, shared: bool) -> Any:
        with ByRules():
            run = vmap(self._one(self._code[0]), (0, None if shared else 0), randomness="different")
            return run(tensors, x)

    def _looped(self, tensors: dict[str, Tensor], x: Tensor, shared: bool) -> Any:
        one = self._one(self._synced())
        members = range(next((len(t) for t in tensors.values()), self.K))
        ys = [
            one({name: t[k] for name, t in tensors.items()}, x if shared else x[k]) for k in members
        ]
        return torch.stack(ys) if isinstance(ys[0], Tensor) else ys[0]

    def _one(self, code: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Any]:
        def call(tensors: dict[str, Tensor], x: Tensor) -> Any:
            given = dict(tensors)
            y = functional_call(code, tensors, (x,))
            for name, t in given.items():
                if tensors[name] is not t:  # what was put there would be lost
                    raise RuntimeError(
                        f"DiscriminatorBank: the discriminator replaces its buffer {name}; it must "
                        "write to it in place"
                    )
            return y

        return call

    def _synced(self) -> nn.Module:
        """The plain module, with the training flags of the bank's layers."""
        code, plain = self._code
        flags = {name: layer.training for name, layer in code.named_modules()}
        for name, layer in plain.named_modules():
            layer.training = flags.get(name, layer.training)
        return plain


def _copy(t: Tensor) -> Tensor:
    return t.detach().clone(memory_format=torch.contiguous_format)

"""augment: [x ; T(x)] of byte images, and its backward, against the same in stock PyTorch.

Each arm draws its own random numbers, as people's code does, so the arms' numbers differ; tests
compare them. The floor moves what must be moved by plain copies: the batch in, both halves out, to
memory as new as an op's result. `copy in cache` is the floor of old, one buffer copied into another
for ever: at 16 MB it never leaves the last cache, which no op that returns a new tensor can have.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from arms import sizes
from harness import Case, Floor, Size
from torch import Tensor

from ganops import ops
from ganops._timing import copy_arm
from ganops.ops import AugmentPolicy

Bench = Callable[[Case], None]
POLICIES = {
    "flip": AugmentPolicy(shift=0.0),
    "flip, reflect shift": AugmentPolicy(),
    "flip, reflect shift, colour, cutout": AugmentPolicy(
        brightness=0.5, saturation=1.0, contrast=0.5, cutout=0.5
    ),
}


def draw(n: int, device: torch.device) -> Tensor:
    return torch.rand(n, 1, 1, 1, device=device)


def cutout_mask(x: Tensor, policy: AugmentPolicy) -> Tensor:
    n, _, height, width = x.shape
    size = [int(side * policy.cutout + 0.5) for side in (height, width)]
    offsets = [
        torch.randint(0, side + 1 - c % 2, (n, 1, 1), device=x.device)
        for c, side in zip(size, (height, width))
    ]
    batch, rows, columns = torch.meshgrid(
        *(torch.arange(k, device=x.device) for k in (n, *size)), indexing="ij"
    )
    rows = (rows + offsets[0] - size[0] // 2).clamp(0, height - 1)
    columns = (columns + offsets[1] - size[1] // 2).clamp(0, width - 1)
    mask = torch.ones(n, height, width, device=x.device)
    mask[batch, rows, columns] = 0
    return mask[:, None]


def stock(x: Tensor, policy: AugmentPolicy, dtype: torch.dtype) -> Tensor:
    """As written in the code bases of DiffAugment and StudioGAN: whole-batch tensor operations."""
    n, _, height, width = x.shape
    y = original = x.to(torch.float32) / 127.5 - 1 if x.dtype == torch.uint8 else x
    if policy.brightness:
        y = y + (draw(n, x.device) - 0.5)
        mean = y.mean(1, keepdim=True)
        y = (y - mean) * (draw(n, x.device) * 2) + mean
        mean = y.mean((1, 2, 3), keepdim=True)
        y = (y - mean) * (draw(n, x.device) + 0.5) + mean
    y = torch.where(draw(n, x.device) < 0.5, y.flip(3), y)
    if policy.shift:
        most = [height // 8, width // 8]
        padded = F.pad(y, (most[1], most[1], most[0], most[0]), mode="reflect")
        rows, columns = (
            torch.randint(0, 2 * m + 1, (n, 1), device=x.device)
            + torch.arange(side, device=x.device)
            for m, side in zip(most, (height, width))
        )
        batch = torch.arange(n, device=x.device)[:, None, None]
        y = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
        y = y.permute(0, 3, 1, 2)
    if policy.cutout:
        y = y * cutout_mask(x, policy)
    return torch.cat((original, y)).to(dtype)


def stock_moving_bytes(x: Tensor, policy: AugmentPolicy, dtype: torch.dtype) -> Tensor:
    """The same, with a quarter of the bytes to move: flipped and shifted before they are floats."""
    n, _, height, width = x.shape
    y = torch.where(draw(n, x.device) < 0.5, x.flip(3), x)
    if policy.shift:
        index = []
        for side in (height, width):
            most = side // 8
            at = torch.randint(-most, most + 1, (n, 1), device=x.device)
            at = (at + torch.arange(side, device=x.device)).abs()
            index.append(torch.where(at < side, at, 2 * (side - 1) - at))
        batch = torch.arange(n, device=x.device)[:, None, None]
        y = y.permute(0, 2, 3, 1)[batch, index[0][:, :, None], index[1][:, None, :]]
        y = y.permute(0, 3, 1, 2)
    pair = torch.cat((x, y)).to(torch.float32).div_(127.5).sub_(1)
    original, y = pair[:n], pair[n:]
    if policy.brightness:
        bright = draw(n, x.device) - 0.5
        image_mean = original.mean((1, 2, 3), keepdim=True) + bright
        y.add_(bright)
        mean = y.mean(1, keepdim=True)
        y.sub_(mean).mul_(draw(n, x.device) * 2).add_(mean)
        y.sub_(image_mean).mul_(draw(n, x.device) + 0.5).add_(image_mean)
    if policy.cutout:
        y.mul_(cutout_mask(x, policy))
    return pair.to(dtype)


def kornia(x: Tensor, policy: AugmentPolicy, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """The peer, where it has the same transforms; it shifts by fractions, through a warp."""
    if policy.brightness:
        return {}
    steps: list[Callable[[Tensor], Tensor]] = []

    def pair() -> Tensor:
        if not steps:  # here, so that a row says why it has no such arm
            from kornia import augmentation

            steps.append(augmentation.RandomHorizontalFlip(p=0.5))
            if policy.shift:
                most = (-policy.shift, policy.shift)
                steps.append(
                    augmentation.RandomTranslate(most, most, p=1.0, padding_mode="reflection")
                )
        y = original = x.to(torch.float32) / 127.5 - 1
        for step in steps:
            y = step(y)
        return torch.cat((original, y)).to(dtype)

    return {"kornia": pair}


def byte_images(size: Size, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, size.shape, dtype=torch.uint8, generator=generator).to(device)
    layout = torch.channels_last if size.channels_last else torch.contiguous_format
    return x.contiguous(memory_format=layout)


def fresh_copies(x: Tensor, dtype: torch.dtype) -> Floor:
    """Every byte of x as often as the pair has bytes for it, by plain copies to a new tensor.

    A result of ours is memory that the allocator has just given; so is this, warm or cold alike.
    """
    times = 2 * dtype.itemsize
    source = x.contiguous().flatten().expand(times, -1)
    size = source.numel()
    return Floor(
        f"copies of {x.numel() / 1e6:.4g} MB to {size / 1e6:.4g} MB of new memory",
        lambda: torch.empty(size, dtype=x.dtype, device=x.device).view(times, -1).copy_(source),
    )


NOTE = "each arm draws its own numbers"


@pytest.mark.parametrize("name", POLICIES)
@sizes(
    tiny=["2x3x8x8 float16"],
    # The size's dtype is the result's; what comes in is bytes.
    default=["16x3x256x256 float16", "16x3x256x256", "16x3x256x256 float16 channels_last",
             "64x3x32x32"],
    paper=["256x3x256x256 float16"],
)  # fmt: skip
def bench_pair_of_bytes(size: Size, name: str, device: str, impl: str, bench: Bench) -> None:
    """Floor: bytes read once, both halves written once."""
    policy, x = POLICIES[name], byte_images(size, device)
    nbytes = size.count + 2 * size.nbytes
    peers = {
        "reference": lambda: ops.consistency_pair(
            x, policy, out_dtype=size.dtype, impl="reference"
        ),
        "copy in cache": copy_arm(nbytes, size.dtype, device),
    }
    bench(
        Case(
            op="augment",
            row=f"{size} from bytes, {name}",
            ours=lambda: ops.consistency_pair(x, policy, out_dtype=size.dtype, impl=impl),
            stock={
                "stock": lambda: stock(x, policy, size.dtype),
                "stock, bytes moved": lambda: stock_moving_bytes(x, policy, size.dtype),
            },
            peers=peers,
            optional=kornia(x, policy, size.dtype),
            floor=fresh_copies(x, size.dtype),
            nbytes=nbytes,
            flops=0,
            dtype=size.dtype,
            device=device,
            comparable=False,
            headline=size.dtype == torch.float16 and not size.channels_last,
            note=NOTE,
        )
    )


@pytest.mark.parametrize("name", POLICIES)
@sizes(tiny=["2x3x8x8"], default=["16x3x256x256"])
def bench_backward(size: Size, name: str, device: str, impl: str, bench: Bench) -> None:
    """The gradient of the pair to the images alone. Floor: the sum of two halves, a new tensor."""
    policy = POLICIES[name]
    x = size.randn(0, device, requires_grad=True)
    nbytes = 3 * size.nbytes
    halves = [size.randn(seed, device) for seed in (1, 2)]

    def backward_of(y: Tensor) -> Callable[[], Tensor]:
        dy = torch.ones_like(y)
        return lambda: torch.autograd.grad(y, x, dy, retain_graph=True)[0]

    bench(
        Case(
            op="augment",
            row=f"{size}, {name}, backward",
            ours=backward_of(ops.consistency_pair(x, policy, impl=impl)),
            stock={"stock": backward_of(stock(x, policy, size.dtype))},
            peers={
                "reference": backward_of(ops.consistency_pair(x, policy, impl="reference")),
                "copy in cache": copy_arm(nbytes, size.dtype, device),
            },
            floor=Floor(f"sum moving {nbytes / 1e6:.4g} MB", lambda: torch.add(*halves)),
            nbytes=nbytes,
            flops=0,
            dtype=size.dtype,
            device=device,
            comparable=False,
            note=NOTE,
        )
    )

"""Every dispatcher op under torch.library.opcheck: schema, fakes, autograd keys, AOT dispatch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ganops.ops.ada.fused import plan
from ganops.ops.ada.policy import AdaPolicy
from ganops.ops.bias_act import ACTIVATIONS
from ganops.ops.resize import make_taps
from ganops.ops.smooth.reference import VALUES

ROOT = Path(__file__).parents[2]
SWISH, LRELU, SIGMOID = (list(ACTIVATIONS).index(a) for a in ("swish", "lrelu", "sigmoid"))


def compact(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def permuted(*shape):
    return torch.randn(*shape[::-1], dtype=torch.float64).permute(*range(len(shape))[::-1])


def last_two_swapped(*shape):
    return torch.randn(*shape[:-2], shape[-1], shape[-2], dtype=torch.float64).mT


def sliced(*shape):
    return torch.randn(*shape[:-1], 2 * shape[-1], dtype=torch.float64)[..., ::2]


LAYOUTS = {"compact": compact, "permuted": permuted, "swapped": last_two_swapped, "sliced": sliced}


def arguments(op, make, device):
    """Argument lists of an op, from tensors that `make` lays out; differentiable ones need grad."""
    torch.manual_seed(0)
    shape = (2, 3, 5)
    x, y, v = (make(*shape).to(device).requires_grad_() for _ in range(3))
    b = torch.randn(3, dtype=torch.float64, device=device, requires_grad=True)
    go = torch.tensor(0.7, dtype=torch.float64, device=device, requires_grad=True)
    norms = x.detach().flatten(1).norm(dim=1)
    swish, lrelu = (1, SWISH, 0.0, 1.3, 0.8), (1, LRELU, 0.2, 1.3, -1.0)
    sigmoid = (1, SIGMOID, 0.0, 1.3, -1.0)
    inside = (x.detach().sigmoid() * 1.3).requires_grad_()
    rstd, w5 = norms.detach().rsqrt().repeat(15), torch.randn(5, dtype=torch.float64, device=device)
    third = torch.randn(3, dtype=torch.float64, device=device)
    grad2 = (v, y, x)
    ones = [torch.ones(n, dtype=torch.float64, device=device) for n in (2, 3, 15, 10)]
    normed = [(([x, y], [u, u.clone()], [w, w.clone()]), dim)
              for u, w, dim in ((ones[0], ones[2], 0), (ones[1], ones[3], 1))]  # fmt: skip
    pairs, others = (make(4, 3, 5).to(device).requires_grad_() for _ in range(2))
    each = torch.tensor([0.7, -1.3], dtype=torch.float64, device=device, requires_grad=True)
    planes = make(2, 2, 3, 4).to(device).requires_grad_()
    images = [make(*shape).to(device).requires_grad_() for shape in ((2, 3, 2, 3), (2, 1, 3, 2))]
    colors = [torch.randn(2, c, c + 1, dtype=torch.float64, device=device) for c in (3, 1)]
    one = 1 << 32  # a resampled sample, and a flipped one
    maps = torch.tensor(
        [[one, one // 3, 99, -one // 3, one, -(3 << 30), 1], [-one, 0, 2 * one, 0, one, one, 0]],
        device=device,
    )
    ada = [(images[0], maps, colors[0]), (images[1], maps, colors[1]), (images[1], maps, None)]
    row = [1.0, 0.0, 1.0, 0.2, 0.7, 1.2, 0.0, 1.0, 1.0, 2.0, 0.1]  # of augment's parameters
    drawn = torch.tensor([row, row], device=device)
    image = x.detach()[:, :, None].requires_grad_()
    bytes_ = (image.detach() * 30 + 100).to(torch.uint8)
    axes = [[t for size, out in ((1, 4), (5, 3)) for t in make_taps(protocol, size, out, device)]
            for protocol in ("tf", "clean")]  # fmt: skip
    return {
        "ada": ada,
        "ada_grad": ada,
        "ada_params": [(torch.tensor(0.6, dtype=torch.float64, device=device), plan(policy), 3, -5,
                        7, 8, 9) for policy in (AdaPolicy(), AdaPolicy.preset("ada-bgcfnc"))],
        "consistency": [(pairs, None, 0.5, False), (pairs, others, 1.5, True)],
        "consistency_grad": [(go, pairs, 0.5), (each, pairs, 1.5)],
        "feature_stats": [(make(4, 5).to(device), w5, w5.outer(w5), count, fast)
                          for count, fast in ((0, False), (7, True))],
        "norm_grad2": [
            (*grad2, rstd[:6], rstd[:6], w5, None, None, 5, 0, True),
            (*grad2, None, rstd[:2], b, third, third, 3, 1, True),
            (*grad2, rstd[:3], rstd[:3], b, None, third, 3, 2, False),
            (*grad2, rstd[:10], rstd[:10], w5, w5, w5, 5, 3, True),
        ],
        "augment_params": [(x.detach(), 3, -5, 7, 8, 9, 2**23, 2**24, 1, 2, 3, 4, 0.0, 0.0,
                            0.5, 1.0, 0.5, 0.1)],
        "augment": [(image, drawn, 1, 2, flags, 1, pair, linear)
                    for flags, pair, linear in ((29, True, False), (12, False, True))],
        "augment_grad": [(image, drawn[:1], 13, 1, True)],
        "bias_act": [(x, b, *swish), (x, None, *lrelu)],
        "bias_act_grad": [
            (v, x, b, *swish, False, True), (v, x, None, *lrelu, True, False),
            (v, inside, b, *sigmoid, True, True),
        ],
        "bias_act_grad2": [(v, y, x, b, *swish, False), (v, y, inside, None, *sigmoid, True)],
        "gradient_penalty": [(x, 1.0, False), (x, 0.5, True)],
        "gradient_penalty_fused": [(x, 1.0, False, 10.0), (x, 0.5, True, 0.5)],
        "gradient_penalty_grad": [(go, x, norms, 1.0, False)],
        "gradient_penalty_grad2": [(v, go, x, norms, 1.0, True)],
        "masked_slope_value": [(x, code, 0.2, 1.3) for code in range(4)],
        "masked_slope": [(x, y.detach() > 0, 0.2), (x, y.detach() > 0, 0.0)],
        "resize": [(bytes_, *axis, 128.0, 64.0, dtype, last)
                   for axis in axes for dtype, last in ((0, True), (2, False))],
        "smooth_grad2": [(v, y, x, code, 1.3, 0.8) for code in range(len(VALUES))],
        "spectral_norm": [(*layers, 2 * dim, 1e-12, dim) for layers, dim in normed],
        "spectral_norm_grad": [(layers[0], *layers, norms[:1].repeat(2), dim)
                               for layers, dim in normed],
        "upfirdn2d": [
            (planes, third, 2, 1, 1, 2, 1, 3, 7, 3, False, 0.5),
            (planes, third.outer(w5), 1, 3, 2, 1, 2, 1, 2, 8, True, 2.0),
        ],
        "philox": [(torch.empty(0, device=device), 7, -3, 5, 2, kind) for kind in range(3)],
    }[op]  # fmt: skip


OPS = re.findall(r'define\(\s*m, "(\w+)"', (ROOT / "csrc" / "library.cpp").read_text())
LAST_ORDER = {
    "bias_act_grad2",
    "gradient_penalty_grad2",
    "gradient_penalty_fused",
    "norm_grad2",
    "smooth_grad2",
}  # differentiating them is refused


def test_the_list_of_ops_is_not_empty():
    assert len(OPS) >= 20


def each_tensor(f, args):
    """The arguments with f of every tensor, also of those in lists."""

    def of(a):
        return [of(b) for b in a] if isinstance(a, list) else f(a) if torch.is_tensor(a) else a

    return [of(a) for a in args]


def all_tensors(results):
    """Of an op's results, lists among them laid flat."""
    if torch.is_tensor(results):
        return [results]
    return [t for result in results for t in all_tensors(result)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPS)
def test_opcheck(backend, op, layout):
    if backend == ("triton", "cpu") and layout in ("swapped", "sliced"):
        pytest.skip("compact and permuted do, where interpreting each takes a second")
    if backend == ("triton", "cpu") and op.startswith("ada"):
        pytest.skip("interpreting takes minutes; test_ada does it once")
    found = getattr(torch.ops.ganops, op + backend.suffix)
    for args in arguments(op, LAYOUTS[layout], backend.device):
        plain = each_tensor(torch.Tensor.detach, args)
        torch.library.opcheck(found.default, plain if op in LAST_ORDER else args)
        torch.library.opcheck(found.kernel, plain)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPS)
def test_fakes_agree_in_strides(backend, op, layout):
    """opcheck compares strides up to its own taste; here they are equal."""
    if backend == ("triton", "cpu") and op.startswith("ada"):
        pytest.skip("interpreting takes minutes; test_ada does it once")
    found = getattr(torch.ops.ganops, op + backend.suffix).kernel
    for args in arguments(op, LAYOUTS[layout], backend.device):
        plain = each_tensor(torch.Tensor.detach, args)
        real = found(*plain)
        with torch._subclasses.FakeTensorMode() as mode:
            fake = found(*each_tensor(mode.from_tensor, plain))
        for r, f in zip(all_tensors(real), all_tensors(fake), strict=True):
            assert (r.shape, r.stride(), r.dtype) == (f.shape, f.stride(), f.dtype)

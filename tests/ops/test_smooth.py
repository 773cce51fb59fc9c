"""Smooth activations: torch's values and slopes bit for bit, and one kernel of order 2."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from backends import Backend
from compare import DTYPES, assert_near, assert_same_bits, three_orders
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import ganops
from ganops import ops
from ganops.ops.smooth import TWINS
from ganops.ops.smooth.reference import VALUES

ROOT = Path(__file__).parents[2]
partial = functools.partial
CASES = {
    "silu": (ops.silu, F.silu),
    "gelu": (ops.gelu, F.gelu),
    "gelu_tanh": (partial(ops.gelu, approximate="tanh"), partial(F.gelu, approximate="tanh")),
    "softplus": (ops.softplus, F.softplus),
    "softplus_sharp": (partial(ops.softplus, beta=3.0, threshold=2.0),
                       partial(F.softplus, beta=3.0, threshold=2.0)),
    "elu": (ops.elu, F.elu),
    "elu_1.7": (partial(ops.elu, alpha=1.7), partial(F.elu, alpha=1.7)),
    "elu_negative": (partial(ops.elu, alpha=-0.6), partial(F.elu, alpha=-0.6)),
    "selu": (ops.selu, F.selu),
    "tanh": (ops.tanh, torch.tanh),
    "sigmoid": (ops.sigmoid, torch.sigmoid),
    "mish": (ops.mish, F.mish),
    "hardswish": (ops.hardswish, F.hardswish),
}  # fmt: skip
every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(params=[pytest.param(Backend("native", "cpu"), id="native-cpu")])
def native(request):
    reason = request.param.why_not()
    if reason is not None:
        pytest.skip(reason)
    return "native"


def randn(*shape, dtype=torch.float64, device="cpu", seed=7, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(shape, dtype=torch.float64, generator=generator)
    return values.to(device=device, dtype=dtype)


def layouts(dtype, device):
    make = partial(randn, dtype=dtype, device=device)
    return {
        "contiguous": make(2, 3, 5, 7),
        "channels_last": make(2, 3, 5, 7).contiguous(memory_format=torch.channels_last),
        "sliced": make(3, 14)[:, ::2],
        "transposed": make(5, 3).mT,
        "unaligned": make(1030)[1:],
        "large": make(1023, 17),
        "scalar": make(),
        "empty": make(0, 3),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_case
def test_three_orders_in_every_layout(backend, name, dtype):
    """Orders 0 and 1 are torch's bits, order 2 torch's numbers in float64, rounded once."""
    ours, stock = CASES[name]
    for layout, x in layouts(dtype, backend.device).items():
        dy, v = (torch.empty_like(x).copy_(randn(*x.shape, seed=s)) for s in (8, 9))
        with ganops.use_impl(backend.impl):
            got = three_orders(ours, [x], dy, [v])
        same = three_orders(stock, [x], dy, [v])
        leaf = x.detach().requires_grad_()  # under create_graph torch's first is another formula
        (same["d0"],) = torch.autograd.grad(stock(leaf), leaf, dy)
        for order in ("y", "d0"):
            assert_same_bits(got[order], same[order], f"{layout} {order}")
            assert got[order].stride() == same[order].stride()
        # tanh and sigmoid read a rounded y; in halves they are compared on that y.
        wide = three_orders(stock, [x.double()], dy.double(), [v.double()])
        half = dtype in (torch.float16, torch.bfloat16)
        exact = same if half and name in ("tanh", "sigmoid") else wide
        slack = {torch.float64: 60, torch.float32: 8}.get(dtype, 4 if exact is same else 1.5)
        for order in ("dd0", "d_dy"):
            assert_near(got[order], exact[order].to(dtype), slack, f"{layout} {order}")


@every_case
def test_gradcheck_and_gradgradcheck(backend, name):
    ours, _ = CASES[name]
    x = randn(3, 5, device=backend.device).requires_grad_()
    fast = backend == ("triton", "cpu")
    with ganops.use_impl(backend.impl):
        assert gradcheck(ours, x, check_forward_ad=True, check_batched_grad=True, fast_mode=fast)
        assert gradgradcheck(ours, x, check_fwd_over_rev=True, fast_mode=fast)


TRANSFORMS = {
    "hessian": torch.func.hessian,
    "jacrev-jacrev": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    "jacrev-jacfwd": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "grad-of-grad": lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).square().sum()),
    "jvp-of-grad": lambda f: lambda x: torch.func.jvp(torch.func.grad(f), (x,), (x.cos(),))[1],
    "vmap-grad": lambda f: (
        lambda x: torch.func.vmap(torch.func.grad(f), in_dims=1)(torch.stack((x, 2 * x, -x), 1))
    ),
}


@pytest.mark.parametrize("name", ["silu", "tanh", "softplus_sharp"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_torch_func(backend, transform, name):
    x = randn(2, 3, device=backend.device)

    def result(f):
        return TRANSFORMS[transform](lambda x: (f(x) * f(2 * x).cos() + f(x) ** 2).sum())(x)

    expected = result(CASES[name][1])
    assert expected.abs().max() > 0
    with ganops.use_impl(backend.impl):
        assert_near(result(CASES[name][0]), expected, 100)


@every_case
def test_order_three_is_refused(backend, name):
    x = randn(4, device=backend.device).requires_grad_()
    with ganops.use_impl(backend.impl):
        g = CASES[name][0](x**2)
        for _ in range(2):
            (g,) = torch.autograd.grad(g.sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match=r"up to order 2, and order 3.*reference"):
            torch.autograd.grad(g.sum(), x)


def test_reference_has_order_three():
    x = randn(4).requires_grad_()
    with ganops.use_impl("reference"):
        g = ops.sigmoid(x)
        for _ in range(3):
            (g,) = torch.autograd.grad(g.sum(), x, create_graph=True)
    y = x.detach().sigmoid()
    assert_near(g.detach(), y * (1 - y) * (1 - 6 * y + 6 * y * y), 10)


def test_forward_over_forward_is_refused(backend):
    x = randn(3, device=backend.device)
    with (
        ganops.use_impl(backend.impl),
        pytest.raises(RuntimeError, match=r"silu: forward mode inside forward mode"),
    ):
        torch.func.jacfwd(torch.func.jacfwd(lambda x: ops.silu(x).sum()))(x)


class Kernels(TorchDispatchMode):
    """Names of what runs, but views and what autograd makes of gradients."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and func.overloadpacket is not torch.ops.aten.detach:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@every_case
def test_one_kernel_for_each_order(native, name):
    ours, _ = CASES[name]
    x, dy = randn(4, 3).requires_grad_(), randn(4, 3, seed=8).requires_grad_()
    v = randn(4, 3, seed=9)
    with ganops.use_impl(native), Kernels() as first:
        (g,) = torch.autograd.grad(ours(x), x, dy, create_graph=True)
    assert len(first.names) == 2
    with Kernels() as second:
        torch.autograd.grad(g, (x, dy), v)
    chain = {"tanh": ["tanh_backward"], "sigmoid": ["sigmoid_backward"]}.get(name, [])
    assert second.names == ["smooth_grad2", *chain]


def test_the_count_sees_what_stock_pytorch_runs():
    x = randn(4, 3).requires_grad_()
    with Kernels() as first:
        (g,) = torch.autograd.grad(F.silu(x), x, randn(4, 3), create_graph=True)
    with Kernels() as second:
        torch.autograd.grad(g, x, randn(4, 3))
    assert len(first.names) >= 8
    assert len(second.names) >= 9


@every_case
def test_nothing_is_saved_that_torch_does_not_save(native, name):
    def saved(f):
        x, kept = randn(4, 3).requires_grad_(), set()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.add(t.untyped_storage().data_ptr()) or t, lambda t: t
        ):
            y = f(x)
        return len(kept), x.data_ptr() in kept, y.data_ptr() in kept

    with ganops.use_impl(native):
        assert saved(CASES[name][0]) == saved(CASES[name][1])


@every_case
def test_far_out_and_nan(native, name):
    """Finite at any finite x (torch's own slope of gelu by tanh is not), and NaN where x is."""
    ours, _ = CASES[name]
    for dtype in (torch.float32, torch.float64):
        far = torch.tensor([-1e30, -1e4, -200, -104, -50, 50, 104, 200, 1e4, 1e30], dtype=dtype)
        with ganops.use_impl(native):
            found = three_orders(ours, [far], torch.ones_like(far), [torch.ones_like(far)])
            nan = three_orders(ours, [far * math.nan], far, [far])
        assert found["dd0"].abs().max() < 1e-6
        finite = found["d0"].isfinite()
        assert finite[1:-1].all()
        assert found["d_dy"].isfinite().all()
        assert_near(found["d_dy"][finite], found["d0"][finite], 2)
        assert nan["d_dy"].isnan().all() or name == "hardswish"


@pytest.mark.parametrize("name", ["silu", "elu", "selu", "mish", "hardswish"])
def test_in_place_is_torchs_own(native, name):
    with ganops.use_impl(native):
        x = randn(4)
        y = CASES[name][0](x, inplace=True)
    assert y is x
    assert_same_bits(y, CASES[name][1](randn(4)))


def test_what_is_handed_over(native):
    with ganops.use_impl(native):
        assert ops.sigmoid(torch.arange(3)).dtype == torch.float32
        assert ops.tanh(torch.ones(2, dtype=torch.complex64)).is_complex()
    with pytest.raises(RuntimeError, match="approximate"):
        ops.gelu(torch.ones(2), approximate="sigmoid")
    f = torch.compile(lambda x: ops.silu(x), fullgraph=True, backend="aot_eager")
    assert_near(f(randn(3)), F.silu(randn(3)))
    torch._dynamo.reset()


def test_codes_agree_with_the_enum():
    text = (ROOT / "csrc" / "smooth" / "smooth_math.h").read_text()
    match = re.search(r"enum class Smooth : int \{([^}]*)\}", text)
    assert match is not None
    assert [n.strip() for n in match.group(1).split(",")] == [*VALUES, "count"]


class Rerouted(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return TWINS.get(func, func)(*args, **(kwargs or {}))


def test_twins_give_torchs_numbers():
    x = randn(5)
    for theirs, twin in TWINS.items():
        assert_same_bits(twin(x), theirs(x))
    assert {twin.__name__ for twin in TWINS.values()} == set(ops.smooth.__all__)


WRITTEN = {
    **{m.__name__: m() for m in (nn.SiLU, nn.GELU, nn.Softplus, nn.ELU, nn.SELU, nn.Tanh,
                                 nn.Sigmoid, nn.Mish, nn.Hardswish)},
    "x.tanh": lambda x: x.tanh(),
    "x.sigmoid": lambda x: x.sigmoid(),
    "F.tanh": F.tanh,
    "F.sigmoid": F.sigmoid,
}  # fmt: skip


@pytest.mark.parametrize("written", WRITTEN)
def test_what_people_write_arrives_at_a_twin(native, written):
    with ganops.use_impl(native), Rerouted():
        y = WRITTEN[written](randn(3).requires_grad_())
    assert y.grad_fn.name() == "SmoothBackward"


def test_in_place_modules_stay_in_place(native):
    for module in (nn.SiLU(inplace=True), nn.ELU(inplace=True), nn.SELU(inplace=True)):
        x = randn(3)
        with ganops.use_impl(native), Rerouted():
            assert module(x) is x
            assert x.tanh_() is x

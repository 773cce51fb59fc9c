"""conv2d and conv_transpose2d: torch's numbers, derivatives of every order, and what they run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counting import Counter, Nothing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, vmap
from torch.utils.flop_counter import FlopCounterMode

from ganops import ops


def tensor(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return x.requires_grad_()


class Case:
    """One geometry: arguments, and both functions bound to it."""

    def __init__(self, transposed, x, w, bias, **how):
        self.transposed, self.strided = transposed, how.get("stride") in (2, 3)
        self.x, self.w = tensor(*x), tensor(*w, seed=1)
        channels = w[1] * how.get("groups", 1) if transposed else w[0]
        self.b = tensor(channels, seed=2) if bias else None
        name = "conv_transpose2d" if transposed else "conv2d"
        self.ours = lambda *t: getattr(ops, name)(*t, **how)
        self.stock = lambda *t: getattr(F, name)(*t, **how)
        self.inputs = (self.x, self.w) if self.b is None else (self.x, self.w, self.b)


CASES = {
    "plain": (False, (2, 3, 5, 7), (4, 3, 3, 3), True, {}),
    "dcgan": (False, (2, 3, 8, 6), (4, 3, 4, 4), False, {"stride": 2, "padding": 1}),
    "odd": (False, (2, 4, 7, 5), (6, 2, 3, 2), True,
            {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}),
    "depthwise": (False, (1, 3, 5, 5), (6, 1, 3, 3), False, {"groups": 3, "padding": 1}),
    "1x1": (False, (3, 2, 4, 3), (5, 2, 1, 1), True, {}),
    "same": (False, (2, 2, 5, 6), (2, 2, 3, 3), True, {"padding": "same"}),
    "same-asymmetric": (False, (2, 2, 5, 6), (2, 2, 2, 4), True,
                        {"padding": "same", "dilation": (3, 1)}),
    "valid": (False, (2, 2, 5, 6), (2, 2, 2, 4), False, {"padding": "valid"}),
    "unbatched": (False, (3, 5, 6), (4, 3, 3, 3), True, {"padding": 1}),
    "left-over-pixels": (False, (2, 2, 8, 8), (3, 2, 3, 3), False, {"stride": 3}),
    "transposed": (True, (2, 3, 4, 5), (3, 4, 3, 3), True, {}),
    "transposed-odd": (True, (2, 4, 4, 3), (4, 3, 3, 2), True,
                       {"stride": (2, 3), "padding": 1, "output_padding": (1, 2), "groups": 2}),
    "transposed-dilated": (True, (3, 4, 3), (3, 2, 2, 2), False, {"dilation": 2}),
}  # fmt: skip
every_case = pytest.mark.parametrize("c", [Case(*v[:4], **v[4]) for v in CASES.values()], ids=CASES)


@every_case
def test_value_and_first_derivatives_are_torchs_bit_for_bit(c):
    y, expected = c.ours(*c.inputs), c.stock(*c.inputs)
    assert torch.equal(y, expected)
    dy = tensor(*y.shape, seed=3).detach()
    pairs = list(zip(*(torch.autograd.grad(o, c.inputs, dy) for o in (y, expected))))
    if c.strided and not c.transposed:  # to few channels: conv/sub_pixel.py
        torch.testing.assert_close(*pairs.pop(0), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(got, wanted) for got, wanted in pairs)


@pytest.mark.filterwarnings("ignore:.*batching rule")
@every_case
def test_gradcheck_in_every_mode(c):
    gradcheck(c.ours, c.inputs, check_forward_ad=True, check_batched_grad=True,
              check_batched_forward_grad=True)  # fmt: skip
    gradgradcheck(c.ours, c.inputs, check_fwd_over_rev=True, check_batched_grad=True)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_gradgradcheck_over_random_geometries(data):
    small = st.integers(1, 3)
    transposed, bias = data.draw(st.booleans()), data.draw(st.booleans())
    groups, cin, cout = data.draw(st.integers(1, 3)), data.draw(small), data.draw(small)
    k = [data.draw(small) for _ in "hw"]
    dilation = [data.draw(st.integers(1, 2)) for _ in "hw"]
    stride = [data.draw(small) for _ in "hw"]
    padding = [data.draw(st.integers(0, 2)) for _ in "hw"]
    size = [max(d * (n - 1) + 1, data.draw(st.integers(3, 6))) for d, n in zip(dilation, k)]
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if transposed:
        size = [min(n, 3) + 1 for n in size]
        padding[:] = [min(p, d * (n - 1) // 2) for p, d, n in zip(padding, dilation, k)]
    w = (groups * cin, cout, *k) if transposed else (groups * cout, cin, *k)
    c = Case(transposed, (2, groups * cin, *size), w, bias, **how)
    assert torch.equal(c.ours(*c.inputs), c.stock(*c.inputs))
    gradcheck(c.ours, c.inputs, fast_mode=True)
    gradgradcheck(c.ours, c.inputs, fast_mode=True)


@every_case
def test_third_order(c):
    # Not against torch's: with an output_padding its third order raises.
    def gradients(*inputs):
        return torch.autograd.grad((c.ours(*inputs) ** 3).sum(), inputs, create_graph=True)

    gradgradcheck(gradients, c.inputs, fast_mode=True, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*batching rule")
def test_torch_func_agrees():
    x, w = tensor(4, 2, 5, 4).detach(), tensor(4, 1, 3, 3, seed=1).detach()

    def transforms(f):
        def cubes(t, u):
            return (f(t, u, None, 2, 1, 1, 2) ** 3).sum()

        def penalty(t, u):
            return grad(cubes)(t, u).square().sum()

        return (
            hessian(cubes)(x[:1], w),
            grad(penalty, 1)(x, w),
            vmap(grad(penalty, 1), (0, None))(x[:, None], w),
            vmap(grad(cubes), (None, 0))(x, torch.stack([w, 2 * w])),
        )

    for got, expected in zip(transforms(ops.conv2d), transforms(F.conv2d)):
        torch.testing.assert_close(got, expected)


def penalty_backward(conv, x, w, counter):
    """A penalty through one layer: what its double backward runs."""
    v = torch.randn(conv(x, w).shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    v.requires_grad_()
    (dx,) = torch.autograd.grad(conv(x, w), x, v, create_graph=True)
    total = dx.square().sum()
    with counter:
        torch.autograd.grad(total, (w, v))


@pytest.mark.parametrize("groups", [1, 2, 48])
def test_double_backward_is_two_calls_for_any_number_of_groups(groups):
    x, w = tensor(2, 48, 6, 6), tensor(48, 48 // groups, 3, 3, seed=1)
    counter = Counter()
    penalty_backward(lambda t, u: ops.conv2d(t, u, groups=groups), x, w, counter)
    assert counter.calls == 2
    assert counter.flops == 2 * 2 * (2 * 4 * 4) * w.numel()
    if groups > 1:
        penalty_backward(lambda t, u: F.conv2d(t, u, groups=groups), x, w, stock := Counter())
        assert stock.calls == 1 + groups  # if torch mends this, the twin has done its duty


def test_our_counter_agrees_with_torchs_where_that_is_right():
    x, w = tensor(2, 3, 9, 8), tensor(5, 3, 3, 3, seed=1)
    a, b = tensor(4, 5, seed=2), tensor(5, 6, seed=3)
    with FlopCounterMode(display=False) as theirs, Counter() as ours:
        ops.conv2d(x, w, stride=2, padding=1).sum().backward()
        F.conv_transpose2d(x, w.transpose(0, 1).contiguous()).sum().backward()
        (a @ b).sum().backward()
    assert ours.flops == theirs.get_total_flops()


@pytest.mark.parametrize("need_x", [True, False])
@pytest.mark.parametrize("need_w", [True, False])
def test_only_what_is_needed_is_kept(need_x, need_w):
    x, w = tensor(2, 3, 5, 5).detach(), tensor(4, 3, 3, 3, seed=1).detach()
    y = ops.conv2d(x.requires_grad_(need_x), w.requires_grad_(need_w))
    if need_x and need_w:  # in two nodes, see test_conv_taps.py
        nodes = [y.grad_fn, y.grad_fn.next_functions[1][0]]
        kept = {t.data_ptr() for node in nodes for t in node.saved_tensors}
        assert kept == {x.data_ptr(), w.data_ptr()}
    elif need_x or need_w:
        assert [t is not None for t in y.grad_fn.saved_tensors] == [need_w, need_x]
    else:
        assert y.grad_fn is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_channels_last_stays(dtype):
    x = tensor(2, 3, 8, 8, dtype=dtype).detach().to(memory_format=torch.channels_last)
    w = tensor(4, 3, 3, 3, seed=1, dtype=dtype).detach().to(memory_format=torch.channels_last)
    x, w = x.requires_grad_(), w.requires_grad_()
    y, expected = ops.conv2d(x, w), F.conv2d(x, w)
    assert torch.equal(y, expected)
    assert y.stride() == expected.stride()
    dy = torch.randn_like(y)
    got, wanted = (torch.autograd.grad(o, (x, w), dy) for o in (y, expected))
    for a, b in zip(got, wanted):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()


def test_autocast_casts_as_torch_does():
    x, w, b = (tensor(*s, seed=i, dtype=torch.float32)
               for i, s in enumerate([(2, 3, 6, 6), (4, 3, 3, 3), (4,)]))  # fmt: skip
    found = []
    for f in (ops.conv2d, F.conv2d):
        with torch.autocast("cpu", torch.bfloat16):
            y = f(x, w, b)
        assert y.dtype == torch.bfloat16
        found.append((y, *torch.autograd.grad(y.float().square().sum(), (x, w, b))))
    for a, b in zip(*found):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_linear_is_torchs():
    x, w, b = tensor(2, 5, 3), tensor(4, 3, seed=1), tensor(4, seed=2)
    assert torch.equal(ops.linear(x, w, b), F.linear(x, w, b))
    gradgradcheck(ops.linear, (x, w, b))


def test_an_empty_batch():
    w = tensor(4, 3, 3, 3)
    y = ops.conv2d(torch.zeros(0, 3, 5, 5, dtype=w.dtype), w)
    (dw,) = torch.autograd.grad(y.sum(), w)
    assert y.shape == (0, 4, 3, 3)
    assert not dw.any()


def test_bad_input():
    x, w = tensor(2, 3, 5, 5), tensor(4, 3, 3, 3, seed=1)
    with pytest.raises(ValueError, match="'valid', 'same' or numbers, got 'full'"):
        ops.conv2d(x, w, padding="full")
    with pytest.raises(ValueError, match="'same' needs stride 1"):
        ops.conv2d(x, w, padding="same", stride=2)
    with pytest.raises(RuntimeError, match="to have 3 channels"):
        ops.conv2d(x[:, :2], w)
    with pytest.raises(RuntimeError, match=r"dtype|type"):
        ops.conv2d(x.float(), w)


def test_integer_convolutions_go_to_torch():
    x, w = torch.ones(1, 1, 3, 3, dtype=torch.int64), torch.ones(1, 1, 2, 2, dtype=torch.int64)
    assert torch.equal(ops.conv2d(x, w), F.conv2d(x, w))


@pytest.mark.parametrize("order", [1, 2])
def test_no_gradient_stays_none(order):
    x, w = tensor(2, 3, 5, 5), tensor(4, 3, 3, 3, seed=1)
    out = ops.conv2d(x, w)
    if order == 2:
        out = torch.autograd.grad(out.square().sum(), (x, w), create_graph=True)
        out = torch.cat([g.flatten() for g in out])
    nothing = torch.autograd.grad(Nothing.apply(out).sum(), (x, w), allow_unused=True)
    assert nothing == (None, None)

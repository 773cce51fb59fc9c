"""Where kernels run: on the device of their tensors, on its current stream, within its grid."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from compare import assert_near, assert_same_bits

from ganops import _dispatch, ops
from ganops.ops import _triton

NO_GPU = "needs a CUDA device" if not torch.cuda.is_available() else None
ONE_GPU = "needs two CUDA devices" if torch.cuda.device_count() < 2 else None


@pytest.fixture(params=["native", "triton"])
def impl(request):
    reason = _dispatch.why_not("bias_act", request.param, "cuda")
    if reason is not None:
        pytest.skip(reason)
    return request.param


def every_op(device, impl):
    """Results of all kernels, on tensors of a device that need not be the current one."""
    x, v = (torch.linspace(-2, 3, 4099, device=device).repeat(2, 3, 1) + i for i in range(2))
    b = torch.linspace(-1, 1, 3, device=device).requires_grad_()
    x.requires_grad_()
    y = ops.bias_act(x, b, act="swish", impl=impl)
    first = torch.autograd.grad(y, (x, b), v, create_graph=True)
    second = torch.autograd.grad(first[0], x, v)
    g = x.detach().clone().requires_grad_()
    value = ops.penalty_from_gradient(g, impl=impl)
    (d,) = torch.autograd.grad(value, g, create_graph=True)
    dd = torch.autograd.grad(d, g, v)
    pairs = x.detach().clone().requires_grad_()
    loss = ops.consistency_loss(pairs, reduction="none", impl=impl)
    (slope,) = torch.autograd.grad(loss, pairs, torch.ones_like(loss), create_graph=True)
    bent = torch.autograd.grad(slope, pairs, v)
    fused = ops.penalty_and_gradient(g.detach(), impl=impl)
    draw = ops.random_normal((1001,), seed=3, device=device, impl=impl)
    return [
        t.detach() for t in (y, *first, *second, value, d, *dd, *fused, loss, slope, *bent, draw)
    ]


@pytest.mark.cuda
@pytest.mark.skipif(ONE_GPU is not None, reason=str(ONE_GPU))
def test_tensors_of_a_device_that_is_not_current(impl):
    with torch.cuda.device(0):
        found = every_op("cuda:1", impl)
        assert torch.cuda.current_device() == 0
    with torch.cuda.device(1):
        expected = every_op("cuda:1", impl)
    for got, wanted in zip(found, expected, strict=True):
        assert got.device == torch.device("cuda:1")
        assert_same_bits(got, wanted)


@pytest.mark.cuda
@pytest.mark.skipif(NO_GPU is not None, reason=str(NO_GPU))
def test_another_stream_than_the_default(impl):
    """Work queued before the kernel on its stream takes long: a kernel elsewhere would overtake."""
    stream = torch.cuda.Stream()
    expected = every_op("cuda", "reference")
    every_op("cuda", impl)  # Triton compiles at the first call
    x, busy = torch.zeros(1 << 20, device="cuda"), torch.zeros(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(200):
            busy = busy @ busy
        x += 1 + busy[0, 0]
        y = ops.bias_act(x, act="lrelu", gain=1.0, impl=impl)
        value = ops.penalty_from_gradient(x[None], center=0.0, impl=impl)
        found = every_op("cuda", impl)
    assert not stream.query(), "the work before the kernels did not take long enough to tell"
    stream.synchronize()
    assert (y == 1).all()
    assert value.item() == x.numel()
    for got, wanted in zip(found, expected, strict=True):
        scale = wanted.abs().max()
        assert_near(got / scale, wanted / scale, 20)


class Kernel:
    """Stands for a Triton kernel: notes what it was launched with, and under which guard."""

    def __init__(self):
        self.seen = []
        self.guarded = None

    def __getitem__(self, grid):
        return lambda *args, **meta: self.seen.append((grid, self.guarded, args, meta))


def test_triton_launches_under_the_guard_of_their_tensors_device(monkeypatch):
    kernel = Kernel()

    class Guard:
        def __init__(self, tensor):
            self.tensor = tensor

        def __enter__(self):
            kernel.guarded = self.tensor

        def __exit__(self, *_):
            kernel.guarded = None

    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    x = torch.zeros(3)
    _triton.launch(kernel, 7, x, 1, 2, BLOCK=4)
    [(grid, guarded, args, meta)] = kernel.seen
    assert guarded is x
    assert (grid, args, meta) == ((7,), (1, 2), {"BLOCK": 4})


def test_triton_grids_are_one_dimensional_and_bounded():
    kernel, x = Kernel(), torch.zeros(3)
    _triton.launch(kernel, 0, x)
    assert kernel.seen == []  # nothing to do: CUDA refuses an empty grid
    _triton.launch(kernel, 2**31 - 1, x)
    with pytest.raises(ValueError, match=r"that 2147483647 Triton programs cover, got \(3,\)"):
        _triton.launch(kernel, 2**31, x)
    assert len(kernel.seen) == 1


@pytest.mark.skipif(not _dispatch.triton_importable(), reason="Triton is not installed")
def test_importing_the_ops_does_not_import_triton():
    code = "import sys, ganops.ops; print('triton' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.stdout.split() == ["False"], said.stderr

"""optimize(): the same module, numbers and keys, and a cheaper second derivative."""

from __future__ import annotations

import copy
import io

import critics
import pytest
import torch
from counting import Counter
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import remove_parametrizations

import ganops
from ganops import ops


def images(batch=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, 12, 12, generator=generator, dtype=torch.float64)


def handwritten_penalty(critic, x):
    """As in people's own code: no ganops in it."""
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (grad.flatten(1).norm(dim=1) - 1).square().mean()


def gradients(critic, loss):
    found = torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, critic.parameters())]


def all_close(ours, expected):
    for a, b in zip(ours, expected):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", critics.CRITICS)
def test_the_same_numbers_keys_and_penalties(name):
    stock, x = critics.make(name), images()
    ours = ganops.optimize(copy.deepcopy(stock), verbose=False)
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in stock.named_modules()]
    torch.testing.assert_close(ours(x), stock(x), rtol=1e-13, atol=1e-15)
    all_close(gradients(ours, ours(x).square().sum()), gradients(stock, stock(x).square().sum()))
    expected = gradients(stock, handwritten_penalty(stock, x))
    all_close(gradients(ours, handwritten_penalty(ours, x)), expected)
    ones = torch.ones(3)
    all_close(gradients(ours, ops.gradient_penalty(ours, x, x, alpha=ones)), expected)


def test_a_handwritten_penalty_gets_cheaper():
    """The floor is four forwards, less the last tangent, and a penalty of one's own reaches it as
    those of `ganops.ops` do; stock PyTorch takes six."""
    stock, x = critics.make("dcgan"), images()
    ours = ganops.optimize(critics.make("dcgan"), verbose=False)
    costs = []
    for critic, penalty in (
        (stock, handwritten_penalty),
        (ours, handwritten_penalty),
        (ours, lambda c, x: ops.r1_penalty(c, x)),
    ):
        with torch.no_grad(), Counter() as forward:
            critic(x)
        with Counter() as whole:
            penalty(critic, x).backward()
        costs.append(whole.flops / forward.flops)
    assert costs[0] > 5.8
    assert costs[1] == costs[2] < 4.0


def test_everything_that_hangs_on_a_layer_stays():
    shared = nn.ReLU()
    critic = nn.Sequential(
        spectral_norm(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), shared,
        nn.Conv2d(4, 4, 3), shared, nn.Conv2d(4, 1, 10),
    ).double()  # fmt: skip
    calls = []
    critic[0].register_forward_hook(lambda *_: calls.append("after"))
    critic[4].register_forward_pre_hook(lambda *_: calls.append("before"))
    critic[2].eval()
    keys, objects = list(critic.state_dict()), list(critic)
    weights = [p.data_ptr() for p in critic.parameters()]
    assert ganops.optimize(critic, verbose=False) is critic
    assert list(critic.state_dict()) == keys
    assert [a is b for a, b in zip(critic, objects)] == [True] * 5
    assert [p.data_ptr() for p in critic.parameters()] == weights
    assert critic[1] is critic[3]
    assert not critic[2].training
    assert isinstance(critic[0], ganops.nn.Conv2d)
    critic(images())
    assert calls == ["after", "before"]
    again = copy.deepcopy(critic)
    assert isinstance(again[0], ganops.nn.Conv2d)
    remove_parametrizations(again[0], "weight")
    assert type(again[0]) is ganops.nn.Conv2d
    assert again(images()).shape == (3, 1, 1, 1)


def test_spectral_norm_of_the_older_kind():
    """It is a hook that sets `weight` before each forward."""
    torch.manual_seed(0)
    stock = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)).double()
    ours = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)).double()
    ours.load_state_dict(stock.state_dict())
    ganops.optimize(ours, verbose=False)
    torch.testing.assert_close(ours(images()), stock(images()), rtol=0, atol=0)
    assert list(ours.state_dict()) == list(stock.state_dict())


def test_layers_with_running_statistics():
    for stock, shape in (
        (nn.BatchNorm2d(3), (4, 3, 5, 5)), (nn.BatchNorm1d(6, momentum=None), (4, 6)),
        (nn.InstanceNorm2d(3, track_running_stats=True, affine=True), (4, 3, 5, 5)),
        (nn.BatchNorm3d(3, track_running_stats=False), (2, 3, 2, 3, 4)),
    ):  # fmt: skip
        stock = stock.double()
        ours = ganops.optimize(stock, inplace=False, verbose=False)
        assert type(ours).__module__.startswith("ganops")
        for training in (True, True, False):
            x = torch.randn(shape, dtype=torch.float64)
            torch.testing.assert_close(ours.train(training)(x), stock.train(training)(x))
        for key, value in stock.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[key], value)


def test_a_pickled_module_comes_back():
    critic = ganops.optimize(critics.make("dcgan"), verbose=False)
    file = io.BytesIO()
    torch.save(critic, file)
    file.seek(0)
    back = torch.load(file, weights_only=False)
    torch.testing.assert_close(back(images()), critic(images()), rtol=0, atol=0)


class OwnConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


def test_what_is_left_is_named_with_its_reason():
    replaced = nn.Conv2d(3, 3, 1)
    replaced.forward = lambda x: x + 1
    critic = nn.Sequential(OwnConv(3, 3, 1), replaced, nn.LazyConv2d(2, 1), nn.GLU(1), nn.ReLU())
    own_forward = critic[0].forward
    found = ganops.nn.report(ganops.optimize(critic, verbose=False))
    assert type(critic[0]) is OwnConv
    assert critic[0].forward == own_forward
    assert found.swapped == [("4", "ReLU")]
    reasons = {name: why for name, _, why in found.left}
    assert "subclass of Conv2d" in reasons["0"]
    assert "forward was replaced" in reasons["1"]
    assert "lazy" in reasons["2"]
    assert reasons["3"] == "no twin"
    assert not found.piecewise_linear
    assert "left 0, OwnConv: a subclass of Conv2d" in str(found)


def test_the_report_tells_piecewise_linear_from_not(capsys):
    ganops.optimize(critics.make("dcgan"))
    assert "all layers are piecewise linear" in capsys.readouterr().out
    found = ganops.nn.report(ganops.optimize(critics.make("residual"), verbose=False))
    assert found.piecewise_linear
    assert found.own_code == ["(root)"]
    assert "what the code of (root) calls is not in sight" in str(found)
    assert not ganops.nn.report(critics.make("silu")).piecewise_linear


def test_a_copy_leaves_the_original_alone():
    critic = critics.make("dcgan")
    ours = ganops.optimize(critic, inplace=False, verbose=False)
    assert type(critic[0]) is nn.Conv2d
    assert type(ours[0]) is ganops.nn.Conv2d
    assert ganops.optimize(ours, verbose=False) is ours  # a second time changes nothing


@pytest.mark.parametrize("padding", [0, (1, 2), "same", "valid"])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_every_padding(padding, mode):
    stock = nn.Conv2d(3, 2, (3, 4), padding=padding, padding_mode=mode).double()
    ours = ganops.optimize(stock, inplace=False, verbose=False)
    torch.testing.assert_close(ours(images()), stock(images()), rtol=0, atol=0)


def test_transposed_convolution_to_a_size():
    stock = nn.ConvTranspose2d(3, 2, 4, 2, 1).double()
    ours = ganops.optimize(stock, inplace=False, verbose=False)
    for size in (None, [24, 25]):
        torch.testing.assert_close(ours(images(), size), stock(images(), size), rtol=0, atol=0)


def test_bad_input():
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got function"):
        ganops.optimize(lambda x: x)
    with pytest.raises(ValueError, match="optimize it first, then compile"):
        ganops.optimize(torch.compile(nn.Conv2d(3, 3, 1), backend="eager"))


IN_PLACE = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh, nn.SiLU)


@pytest.mark.parametrize("activation", IN_PLACE)
def test_activations_in_place_run_under_torch_func(activation):
    torch.manual_seed(0)
    stock = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), activation(inplace=True), nn.Conv2d(4, 4, 3),
        nn.GroupNorm(2, 4), activation(inplace=True), nn.Flatten(),
        nn.Linear(16, 5), activation(inplace=True), nn.Linear(5, 1),
    ).double()  # fmt: skip
    ours = ganops.optimize(stock, inplace=False, verbose=False)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    func = torch.func

    def everything(m):
        def one(t):
            return m(t[None]).sum()

        def penalty(t):
            return func.vmap(func.grad(one))(t).square().sum()

        yield func.vmap(lambda t: m(t[None]))(x)
        yield func.jacfwd(one)(x[0])
        yield func.hessian(one)(x[0])
        yield func.jvp(m, (x,), (x,))[1]
        yield func.grad(penalty)(x)
        (g,) = torch.autograd.grad(ganops.ops.r1_penalty(func.vmap(one), x), m[0].weight)
        yield g

    for got, expected in zip(everything(ours), everything(stock), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)

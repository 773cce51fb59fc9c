"""The 2015 graph against its table written out again, and against the peers' networks."""

from __future__ import annotations

import importlib

import pytest
import torch
from inception_by_hand import ByHand

from ganops.metrics import inception_deviation
from ganops.metrics.inception import InceptionFeatures
from ganops.metrics.inception_graph import Trunk, folded, public_shapes
from ganops.metrics.inception_weights import random_weights
from ganops.ops import resize_normalize


@pytest.fixture(scope="module")
def weights():
    return random_weights(3).tensors


@pytest.fixture(scope="module")
def network():
    return InceptionFeatures("random:3")


@pytest.fixture(scope="module")
def images():
    """Three unlike each other: noise, a ramp, and gray with a bright corner."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(3, 32, 32)
    corner = torch.full((3, 32, 32), 90, dtype=torch.uint8)
    corner[0, :7, :9] = 250
    return torch.stack((noise, ramp, corner))


@pytest.fixture(scope="module")
def features(network, images):
    return network.outputs(images)


def assert_features_near(got, expected, within=1e-4):
    """Relative to the feature itself, or to a typical one where it is small."""
    scale = expected.abs().clamp_min(expected.abs().mean())
    assert ((got.double() - expected.double()).abs() / scale).max() < within


def test_parameters_and_shapes_are_the_tables():
    shapes = public_shapes()
    learned = [s for name, s in shapes.items() if "running" not in name]
    assert sum(torch.Size(s).numel() for s in learned) == 23_850_960
    assert sum(torch.Size(s).numel() for n, s in shapes.items()
               if "running" not in n and "fc" not in n) == 21_785_568  # fmt: skip
    assert len(shapes) == 94 * 5 + 2
    seen = []
    with torch.device("meta"):
        trunk, x = Trunk(), torch.empty(2, 3, 299, 299)
        for child in trunk.children():
            child.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape[1:3])))
        assert trunk(x).shape == (2, 2048)
    assert seen == [(32, 149), (32, 147), (64, 147), (80, 73), (192, 71), (256, 35), (288, 35),
                    (288, 35), *[(768, 17)] * 5, (1280, 8), (2048, 8), (2048, 8)]  # fmt: skip


def test_agrees_with_the_table_written_by_hand(weights, images, features):
    pool3, unbiased = ByHand(weights)(resize_normalize(images))
    assert_features_near(features.pool3, pool3, 2e-5)
    assert_features_near(features.logits_unbiased, unbiased, 2e-5)
    assert_features_near(features.logits, unbiased + weights["fc.bias"], 2e-5)
    assert features.pool3.dtype == features.logits.dtype == torch.float32
    assert (features.pool3.std(0) > 0.01).float().mean() > 0.7  # the images are told apart


def test_an_average_pool_leaves_padding_out(weights):
    """Of ones, every average is one: the corners too."""
    block = folded(weights, torch.float64).Mixed_5b
    with torch.no_grad():
        y = block.pooled(torch.ones(1, 192, 5, 5, dtype=torch.float64))
    torch.testing.assert_close(y, y[..., 2:3, 2:3].expand_as(y), rtol=1e-12, atol=0)


def test_features_do_not_depend_on_the_batch(network, images, features):
    many = torch.cat((images, images.flip(3), images.flip(2)))[:7]
    whole = network(many)
    small = InceptionFeatures("random:3", batch=2)
    limit = 2e-5 * whole.abs().max()
    assert (small(many) - whole).abs().max() <= limit
    assert (network(images[1:2]) - features.pool3[1:2]).abs().max() <= limit


def test_gray_is_repeated_and_nothing_gives_nothing(network, images):
    gray = images[:1, :1]
    assert torch.equal(network(gray), network(gray.expand(-1, 3, -1, -1)))
    empty = network.outputs(images[:0])
    assert empty.pool3.shape == (0, 2048)
    assert empty.logits.shape == (0, 1008)


def test_evaluates_only_without_gradients_and_returns_plain_tensors(network, images, features):
    network.train()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert not features.pool3.is_inference()
    features.pool3.clone().requires_grad_().sum().backward()  # may be used by autograd


def test_compiling_repeats_no_tensors(network):
    compiled = InceptionFeatures("random", compile=True)
    assert compiled.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize("disturbance", ["autocast", "precision"])
def test_settings_for_training_do_not_reach_it(network, images, features, disturbance):
    convolutions = torch.backends.mkldnn.conv
    before, seen = convolutions.fp32_precision, []
    hook = network.trunk.register_forward_hook(lambda *_: seen.append(convolutions.fp32_precision))
    try:
        if disturbance == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                got = network(images[:1])
        else:
            convolutions.fp32_precision = "bf16"
            got = network(images[:1])
            assert convolutions.fp32_precision == "bf16"
    finally:
        convolutions.fp32_precision = before
        hook.remove()
    assert seen == ["ieee"]
    assert got.dtype == torch.float32
    assert_features_near(got, features.pool3[:1], 2e-5)


@pytest.mark.parametrize("protocol", ["torch", "clean"])
def test_the_protocol_reaches_the_network(weights, images, protocol):
    network = InceptionFeatures("random:3", resize=protocol)
    assert network.resize == protocol
    expected, _ = ByHand(weights)(resize_normalize(images[:1], protocol=protocol))
    assert_features_near(network(images[:1]), expected, 2e-5)


def test_half_precision_is_named_and_near(images, features):
    network = InceptionFeatures("random:3", dtype=torch.bfloat16)
    assert network.name == "inception-RANDOM-WEIGHTS-3-bfloat16"
    got = network(images[:1])
    assert got.dtype == torch.float32
    assert_features_near(got, features.pool3[:1], 0.2)
    assert not torch.equal(got, features.pool3[:1])


def test_the_deviation_command_measures(capsys):
    inception_deviation.main(["--weights", "random", "--images", "8", "--side", "16",
                              "--dtype", "bfloat16"])  # fmt: skip
    said = capsys.readouterr().out
    assert "RANDOM WEIGHTS" in said
    assert "bfloat16 on " in said
    numbers = [float(line.split()[0]) for line in said.splitlines() if line.startswith("  ")]
    assert len(numbers) == 6
    assert 0 < numbers[1] < numbers[0] < 0.5
    assert 0 < numbers[2] < numbers[3]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"resize": "tf1"}, ValueError, "expected resize as one of"),
        ({"dtype": torch.float64}, TypeError, "expected float32, bfloat16 or float16"),
        ({"batch": 0}, ValueError, "expected batch >= 1"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        InceptionFeatures("random", **kwargs)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: x.float(), TypeError, "expected images as a uint8 tensor"),
        (lambda x: x[0], ValueError, "expected images"),
        (lambda x: torch.cat((x, x[:, :1]), 1), ValueError, "alpha"),
    ],
)
def test_bad_images(network, images, make, error, message):
    with pytest.raises(error, match=message):
        network(make(images))


def peer(name):
    """A peer's module, or a skip that says why it cannot be imported."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a broken install raises
        pytest.skip(f"{name} cannot be imported: {type(error).__name__}: {error}")


def test_agrees_with_pytorch_fid(tmp_path, monkeypatch, weights, images):
    """Its own network and its own preparation, from one weights file."""
    theirs = peer("pytorch_fid.inception")
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: counted(weights))
    model = theirs.InceptionV3([3]).eval()
    with torch.no_grad():
        expected = model(images / 255)[0].flatten(1)
    torch.save(counted(weights), tmp_path / "w.pth")
    ours = InceptionFeatures(tmp_path / "w.pth", resize="torch")(images)
    assert_features_near(ours, expected)


def test_agrees_with_torch_fidelity(tmp_path, weights, images, features):
    theirs = peer("torch_fidelity.feature_extractor_inceptionv3")
    torch.save(counted(weights), tmp_path / "w.pth")
    model = theirs.FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased", "logits"], str(tmp_path / "w.pth")
    )
    for got, expected in zip(features, model(images), strict=True):
        assert_features_near(got, expected)


def counted(weights):
    """With the counters of batches, which the published file may or may not have."""
    counters = {name.replace("running_var", "num_batches_tracked"): torch.tensor(0)
                for name in weights if name.endswith("running_var")}  # fmt: skip
    return {**weights, **counters}

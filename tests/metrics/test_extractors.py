"""The extractor protocol, modules as extractors, and the digit classifier."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganops.metrics import classifier
from ganops.metrics.extractors import Extractor, as_extractor, digits_extractor
from ganops.metrics.inception import InceptionFeatures


class Means(nn.Module):
    """The mean of each channel; halved while training."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        return images.float().mean((2, 3)) * self.gain * (0.5 if self.training else 1.0)


def images(n=7, side=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)


def test_a_module_becomes_an_extractor():
    module = Means().train()
    extractor = as_extractor(module, name="means", dim=3, batch=3, resize="none at all")
    assert isinstance(extractor, Extractor)
    assert (extractor.name, extractor.dim, extractor.resize) == ("means", 3, "none at all")
    x = images()
    features = extractor(x)
    assert module.seen == [3, 3, 1]
    torch.testing.assert_close(features, x.float().mean((2, 3)))
    assert not features.requires_grad
    extractor.train()
    torch.testing.assert_close(extractor(x), features)
    assert extractor(x[:0]).shape == (0, 3)
    torch.testing.assert_close(extractor(images(2, 9)), images(2, 9).float().mean((2, 3)))


def test_its_weights_have_a_hash_and_a_function_has_none():
    one, two = (as_extractor(Means(), name="m", dim=3) for _ in range(2))
    assert one.weights_sha256 == two.weights_sha256
    assert len(one.weights_sha256) == 64
    changed = Means()
    with torch.no_grad():
        changed.gain[1] = 2
    assert as_extractor(changed, name="m", dim=3).weights_sha256 != one.weights_sha256
    function = as_extractor(lambda x: x.float().flatten(1), name="pixels", dim=75)
    assert function.weights_sha256 is None
    assert torch.equal(function(images()), images().float().flatten(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Inception-v3", "dim": 3}, "expected a name of its own, got 'Inception-v3'"),
        ({"name": "", "dim": 3}, "expected a name of its own"),
        ({"name": "m", "dim": 0}, "expected dim and batch >= 1, got 0 and 512"),
        ({"name": "m", "dim": 3, "batch": 0}, "expected dim and batch >= 1, got 3 and 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        as_extractor(Means(), **arguments)


def test_bad_images_and_features():
    extractor = as_extractor(Means(), name="means", dim=4)
    with pytest.raises(ValueError, match=r"extractor means: expected features \(7, 4\), got"):
        extractor(images())
    with pytest.raises(ValueError, match=r"expected features .*, got tuple"):
        as_extractor(lambda x: (x,), name="t", dim=4)(images())
    with pytest.raises(TypeError, match=r"expected images as a uint8 tensor .* got torch.float32"):
        extractor(images().float())
    with pytest.raises(TypeError, match="got list"):
        extractor([images()])
    with pytest.raises(ValueError, match=r"expected images \(N, C, H, W\), got \(3, 5, 5\)"):
        extractor(images()[0])


def test_the_digit_classifier_is_an_extractor_of_its_own_name(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 5)
    x = images(40, 6)[:, :1]
    labels = torch.arange(40) % 4
    extractor = digits_extractor(x, labels, cache=str(tmp_path))
    assert isinstance(extractor, Extractor)
    assert extractor.name == "digits-cnn"
    assert "inception" not in extractor.name
    features = extractor(x)
    assert features.shape == (40, extractor.dim) == (40, 64)
    torch.testing.assert_close(features, classifier.train_classifier(x, labels).features(x))
    again = digits_extractor(x, labels, cache=str(tmp_path))
    assert again.weights_sha256 == extractor.weights_sha256


def test_inception_keeps_the_protocol():
    network = InceptionFeatures("random")
    assert isinstance(network, Extractor)
    assert (network.dim, network.resize, network.weights_sha256) == (2048, "tf", "random-0")

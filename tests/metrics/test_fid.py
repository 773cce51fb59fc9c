"""metrics.FID: the protocol of torchmetrics, alone, in its collections, and on two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from two_processes import meet, run_two

from ganops.metrics import FID, InceptionFeatures, frechet_distance_from_features
from ganops.metrics.measure import provenance


class Pixels(nn.Module):
    """uint8 images -> (B, 12): an extractor with all that the protocol knows."""

    name, weights_sha256, resize = "pixels", "00", "none"

    def forward(self, images):
        assert images.dtype == torch.uint8
        return images.flatten(1)[:, :12].float()


def images_of(n, seed, high=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(high, (n, 3, 4, 4), generator=generator).to(torch.uint8)


def expected_of(real, fake):
    return frechet_distance_from_features(*(Pixels()(x) for x in (real, fake)))


def feed(fid, real, fake, step=7):
    for part in real.split(step):
        fid.update(part, real=True)
    for part in fake.split(step):
        fid.update(part, real=False)
    return fid


def test_update_compute_reset():
    real, fake = images_of(60, 0), images_of(41, 1, 200)
    with torch.inference_mode():
        fid = feed(FID(features=Pixels()), real[:30], fake[:20])
    feed(fid, real[30:], fake[20:])
    fid.update(real[:0], real=True)  # empty batches are nothing
    value = fid.compute()
    assert (value.shape, value.dtype) == ((), torch.float64)
    assert float(value) == pytest.approx(expected_of(real, fake), rel=1e-12)
    fid.update(fake[:1], real=False)  # one image is welcome, and changes the next value
    both = torch.cat((fake, fake[:1]))
    assert float(fid.compute()) == pytest.approx(expected_of(real, both), rel=1e-12)
    fid.reset()
    with pytest.raises(ValueError, match="expected 2 real images or more, got 0"):
        fid.compute()
    kept = feed(FID(features=Pixels(), reset_real_features=False), real, fake[:5])
    kept.reset()
    kept.update(fake[:1], real=False)
    with pytest.raises(ValueError, match="expected 2 generated images or more, got 1"):
        kept.compute()
    kept.update(fake[1:], real=False)
    assert float(kept.compute()) == pytest.approx(expected_of(real, fake), rel=1e-12)


def test_the_statistics_know_what_they_are_of():
    fid = feed(FID(features=Pixels()), images_of(3, 0), images_of(3, 1))
    origin = fid._stats[True].provenance
    assert (origin.extractor, origin.weights_sha256) == ("pixels", "00")
    assert (origin.resize, origin.dtype) == ("none", "float32")
    plain = FID(features=lambda x: x.flatten(1).double())
    plain.update(images_of(3, 0), real=True)
    assert plain._stats[True].provenance.weights_sha256 is None
    assert plain._stats[True].provenance.dtype == "float64"


def test_inception_features_are_known_as_the_command_knows_them():
    network = InceptionFeatures("random", dtype=torch.bfloat16)  # computes so, returns float32
    fid = FID(features=network)
    fid.update(images_of(2, 0), real=True)
    assert vars(fid._stats[True].provenance) == provenance(network)


def test_a_call_is_an_update_and_options_reach_the_statistics():
    fid = FID(features=Pixels(), mode="fast")
    assert fid(images_of(3, 0), real=torch.tensor(True)) is None  # a batch has no distance
    assert list(fid._stats) == [True]
    assert (fid._stats[True].count, fid._stats[True].mode) == (3, "fast")


def test_floats_are_rounded_to_the_nearest_level():
    levels = torch.arange(256, dtype=torch.uint8).repeat(12).view(-1, 3, 4, 4)
    for dtype in (torch.float32, torch.float64):
        fid = FID(features=Pixels(), normalize=True)
        assert torch.equal(fid._pixels(levels.to(dtype) / 255), levels)
    real, fake = images_of(30, 0), images_of(30, 1)
    fid = feed(FID(features=Pixels(), normalize=True), real / 255, fake / 255)
    assert float(fid.compute()) == pytest.approx(expected_of(real, fake), rel=1e-12)


def test_bad_images():
    fid, floats = FID(features=Pixels()), FID(features=Pixels(), normalize=True)
    x = images_of(4, 0)
    for metric, images, error, message in (
        (fid, x / 255, TypeError, "expected uint8 images, got torch.float32; normalize=True"),
        (fid, x[0], ValueError, r"expected images \(B, C, H, W\), got \(3, 4, 4\)"),
        (fid, [1], ValueError, "got list"),
        (floats, x, TypeError, r"expected floats in \[0, 1\], got torch.uint8"),
        (floats, x.float(), ValueError, r"expected floats in \[0, 1\], got \[0, 25"),
        (floats, x / 127.5 - 1, ValueError, r"expected floats in \[0, 1\], got \[-1"),
        (floats, x / 255 * float("nan"), ValueError, "got .nan"),
        (FID(features=lambda x: x.float()), x, ValueError, r"expected features \(4, d\)"),
        (FID(features=lambda x: x.flatten(1) / 0.0), x + 1, ValueError, "row 0 of this batch"),
    ):
        with pytest.raises(error, match=message):
            metric.update(images, real=True)
        assert not metric._stats
    with pytest.raises(TypeError, match="expected features as a module, got int"):
        FID(features=2048)


def test_a_state_dict_continues():
    real, fake = images_of(30, 0), images_of(30, 1)
    first = feed(FID(features=Pixels()), real[:11], fake[:20])
    second = FID(features=Pixels())
    second.load_state_dict(first.state_dict())
    feed(second, real[11:], fake[20:])
    assert float(second.compute()) == pytest.approx(expected_of(real, fake), rel=1e-12)


def test_inside_a_torchmetrics_collection():
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    fid_module = pytest.importorskip("torchmetrics.image.fid")
    if not issubclass(FID, torchmetrics.Metric):
        pytest.skip("torchmetrics is installed but could not be imported when FID was")
    theirs = fid_module.FrechetInceptionDistance(
        feature=Pixels(), input_img_size=(3, 4, 4), normalize=False
    )
    both = torchmetrics.MetricCollection({"ours": FID(features=Pixels()), "theirs": theirs})
    real, fake = images_of(200, 0), images_of(150, 1, 200)
    feed(both, real, fake, 50)
    values = both.compute()
    assert float(values["ours"]) == pytest.approx(float(values["theirs"]), rel=1e-5)  # float32
    assert float(values["ours"]) == pytest.approx(expected_of(real, fake), rel=1e-12)
    both.reset()
    feed(both, fake, real, 50)
    again = both.clone().compute()
    assert float(again["ours"]) == pytest.approx(expected_of(real, fake), rel=1e-9)


SHARES = [((9, 4), (8, 0)), ((0, 12), (5, 3))]  # real and fake images of each rank


def test_two_processes_compute_one_distance(tmp_path):
    first, second = run_two(__file__, tmp_path)
    for shares, *values in zip(SHARES, first, second, strict=True):
        real, fake = (torch.cat([images_of(n, 2 * rank + kind) for rank, n in enumerate(counts)])
                      for kind, counts in enumerate(shares))  # fmt: skip
        assert values[0] == values[1]
        assert values[0] == pytest.approx([expected_of(real, fake)] * 2, rel=1e-9)


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meet(rank, folder)
    found = []
    for real, fake in SHARES:
        fid = feed(FID(features=Pixels()), images_of(real[rank], 2 * rank),
                   images_of(fake[rank], 2 * rank + 1))  # fmt: skip
        once = float(fid.compute())
        fid._computed = None  # torchmetrics keeps the value: ask for it anew
        found.append([once, float(fid.compute())])
    torch.save(found, folder / f"{rank}.pt")

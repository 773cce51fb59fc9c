"""The commands that measure images, one dataclass each, as in `commands`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from tyro.conf import Positional, arg

from ganops.cli.options import Flag, Number, Text


@dataclasses.dataclass(frozen=True)
class Fid:
    """Measure generated images against real ones: FID and its relatives.

    REAL and FAKE are each a folder of images, a .zip, an .npz of images or of statistics (mu and
    sigma), an IDX file, or `digits`; FAKE may also be a run, whose generator then draws as many as
    REAL has. Every number is printed with what it depends on. Under torchrun the images are shared
    among the processes.

      ganops fid reals.zip fakes/ --metrics fid,kid,pr --weights pt_inception-2015-12-05.pth
      ganops fid digits runs/first --features cnn
    """

    real: Positional[Annotated[str, arg(metavar="REAL")]]
    """The reference."""
    fake: Positional[Annotated[str, arg(metavar="FAKE")]]
    """What is judged."""
    metrics: Annotated[str, arg(metavar="NAMES")] = "fid"
    """Of fid, fid-infinity, kid, is (Inception Score), pr (precision and recall), dc (density and
    coverage), mifid; with commas."""
    features: Annotated[str, arg(metavar="NAME")] = "inception"
    """inception, or cnn: a small classifier of a labelled REAL, trained here in seconds, for
    MNIST-like sets; its numbers are no FID and say so."""
    weights: Text = None
    """File or URL of the Inception weights (default: the published ones, downloaded once)."""
    protocol: Annotated[str, arg(metavar="NAME")] = "tf"
    """How images become 299x299: tf (torch-fidelity, StyleGAN), torch (pytorch-fid), clean
    (clean-fid), antialias (torchmetrics)."""
    dtype: Annotated[str, arg(metavar="NAME")] = "float32"
    """Of the network; bfloat16 or float16 are faster and change the numbers."""
    n: Number = None
    """Images of each set, chosen at random but always the same; of a run: to generate."""
    res: Number = None
    """Side to crop and resize images to first (default: as they are)."""
    batch: Annotated[int, arg(metavar="N")] = 64
    """Images at a time."""
    workers: Number = None
    """Threads that read images (default: one to a core, at most 8)."""
    device: Annotated[str, arg(metavar="TEXT")] = "auto"
    """Where to compute."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Of a run's samples and of random subsets."""
    cache: Text = None
    """Folder of statistics, kept by content (default: ~/.cache/ganops); none: keep nothing."""
    json: Flag = False
    """Print JSON."""
    quiet: Flag = False
    """No progress."""

    def run(self) -> int:
        from ganops.cli import fid

        options = dataclasses.asdict(self)
        return fid.fid(
            options.pop("real"), options.pop("fake"),
            protocol_name=options.pop("protocol"), as_json=options.pop("json"), **options,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Eval:
    """Measure a run: Frechet distance in features of a small classifier, and classes covered.

    Beside it stand the same numbers for real images against real ones and for noise. With
    --metrics: what `ganops fid DATA RUN` measures.
    """

    folder: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run folder; its data need class labels."""
    data: Text = None
    """Where the data are now, if they have moved."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Seed of the samples."""
    device: Annotated[str, arg(metavar="TEXT")] = "auto"
    """Where to generate."""
    metrics: Annotated[str | None, arg(metavar="NAMES")] = None
    """fid, kid, pr and so on: see `ganops fid --help`, also for the options that follow."""
    features: Annotated[str, arg(metavar="NAME")] = "inception"
    """inception or cnn."""
    weights: Text = None
    """File or URL of the Inception weights."""
    protocol: Annotated[str, arg(metavar="NAME")] = "tf"
    """tf, torch, clean or antialias."""
    n: Number = None
    """Images of each set (default: as many as the data have)."""
    json: Flag = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        from ganops.cli import actions

        if self.metrics is None:
            return actions.evaluate(self.folder, self.data, self.seed, self.device, self.json)
        from ganops.cli import fid

        data, res = actions.data_of(self.folder, self.data)
        return fid.fid(
            data, self.folder, metrics=self.metrics, features=self.features, weights=self.weights,
            protocol_name=self.protocol, n=self.n, res=res, device=self.device, seed=self.seed,
            as_json=self.json,
        )  # fmt: skip

"""The commands, one dataclass each: its fields are its options, ``run()`` does it."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ganops.cli.measuring import Eval, Fid
from ganops.cli.options import Flag, Number, Repeated, Text


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; None means "not said"."""
    return {name: value for name, value in options.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a method on images.

    Settings come, each overriding the one before, from the method's defaults, --config, the options
    here, and --set. `ganops list` shows the methods; `--dry-run` shows every setting and its key.
    Ctrl-C or SIGTERM finishes the step, saves and exits; `ganops resume RUN` goes on from there.
    """

    method: Positional[Annotated[str, arg(metavar="METHOD")]]
    """Name of the method, such as wgan-gp."""
    data: Text = None
    """digits, a folder of images, a .zip with dataset.json, .npz or IDX file (default: digits)."""
    steps: Number = None
    """Generator updates."""
    batch: Number = None
    """Images per batch, over all processes."""
    res: Number = None
    """Side to crop and resize images to (default: as they are)."""
    out: Text = None
    """New or empty run folder (default: runs/00000-METHOD-DATA)."""
    seed: Number = None
    """All randomness follows from it (default: 0)."""
    device: Text = None
    """cpu, cuda, cuda:1, ... (default: a GPU if there is one)."""
    set: Annotated[Repeated, arg(metavar="KEY=VALUE")] = ()
    """Change any setting: --set n_critic=3 --set penalty.weight=5 --set log_every=10."""
    config: Text = None
    """YAML file with settings: the config.yaml of another run serves."""
    dry_run: Flag = False
    """Print the settings, parameter counts, and a measured step; write nothing."""
    quiet: Flag = False
    """No progress."""

    def run(self) -> int:
        from ganops.cli import actions

        options = given(
            data=self.data,
            steps=self.steps,
            batch=self.batch,
            res=self.res,
            seed=self.seed,
            device=self.device,
        )
        return actions.train(
            self.method,
            options,
            self.set,
            config_file=self.config,
            out=self.out,
            dry_run=self.dry_run,
            quiet=self.quiet,
        )


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run, exactly from its last checkpoint.

    Steps, intervals, keep and device may change; any other setting only if --allow names it.
    """

    folder: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run folder."""
    steps: Number = None
    """New total of generator updates."""
    device: Text = None
    """Where to compute from now on."""
    data: Text = None
    """Where the same data are now, if they have moved."""
    set: Annotated[Repeated, arg(metavar="KEY=VALUE")] = ()
    """Change a setting."""
    allow: Annotated[Repeated, arg(metavar="KEY")] = ()
    """Permit a change that makes this another run: --set n_critic=3 --allow n_critic."""
    quiet: Flag = False
    """No progress."""

    def run(self) -> int:
        from ganops.cli import actions

        return actions.resume(
            self.folder,
            given(steps=self.steps, device=self.device),
            self.set,
            data=self.data,
            allow=self.allow,
            quiet=self.quiet,
        )


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw images from a run's averaged generator."""

    folder: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run folder."""
    out: Annotated[str, arg(metavar="FILE")]
    """FILE.npz (key `images`, uint8 NHWC), FILE.png or .jpg (a grid), or a folder: one PNG each."""
    n: Annotated[int, arg(metavar="N")] = 64
    """How many images."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Image i of a seed is the same whatever N."""
    device: Annotated[str, arg(metavar="TEXT")] = "auto"
    """Where to compute."""

    def run(self) -> int:
        from ganops.cli import actions

        return actions.sample(self.folder, self.out, self.n, self.seed, self.device)


@dataclasses.dataclass(frozen=True)
class List:
    """Methods and named data sets."""

    json: Flag = False
    """Print JSON."""

    def run(self) -> int:
        from ganops.data import DATA_NAMES
        from ganops.methods import Recipe

        methods = {name: cls.summary for name, cls in sorted(Recipe.known.items()) if name}
        if self.json:
            print(json.dumps({"methods": methods, "data": list(DATA_NAMES)}, indent=1))
            return 0
        width = max(map(len, methods))
        print("methods")
        for name, summary in methods.items():
            print(f"  {name:{width}}  {summary}")
        print("data\n  " + ", ".join(DATA_NAMES) + ", or a path: folder, .zip, .npz, IDX file")
        return 0


@dataclasses.dataclass(frozen=True)
class Demo:
    """Train WGAN-GP on handwritten digits for two minutes, measure the result, time the kernels."""

    out: Annotated[str, arg(metavar="DIR")] = os.path.join("runs", "demo")
    """Run folder. One that an earlier demo made is replaced; any other is left alone."""
    steps: Number = None
    """Generator updates, to try it shorter or longer."""

    def run(self) -> int:
        from ganops.cli import demo

        return demo.main(self.out, self.steps)


@dataclasses.dataclass(frozen=True)
class Augment:
    """Draw a picture of what augmentation does: one row of images for each policy.

    Without policies: each transform alone. `ganops augment cr diffaug ada-bgc --out a.png`.
    """

    policies: Positional[Annotated[tuple[str, ...], arg(metavar="POLICY ...")]] = ()
    """cr, bcr, diffaug, words such as color,cutout, or ada-bgc and its like."""
    out: Annotated[str, arg(metavar="FILE")] = "augment.png"
    """FILE.png, .svg or .pdf."""
    data: Annotated[str, arg(metavar="TEXT")] = "digits"
    """digits, a folder of images, a .zip with dataset.json, an .npz, or an IDX file."""
    n: Annotated[int, arg(metavar="N")] = 8
    """Images in a row."""
    res: Number = None
    """Side to crop and resize images to (default: as they are)."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Which images, and what is drawn for them."""

    def run(self) -> int:
        from ganops.cli import preview

        return preview.preview(
            self.data, self.policies, self.out, n=self.n, seed=self.seed, res=self.res
        )


COMMANDS: dict[str, Any] = {
    "train": Train,
    "resume": Resume,
    "sample": Sample,
    "eval": Eval,
    "fid": Fid,
    "list": List,
    "augment": Augment,
    "demo": Demo,
}

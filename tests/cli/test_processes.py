"""The command line as a process: start-up time, signals, and a kill at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganops.trainers import Trainer, checkpoint

ROOT = str(Path(__file__).resolve().parents[2])
SMALL = [
    "--set", "generator.width=4", "--set", "critic.width=4", "--set", "critic.hidden=8",
    "--set", "n_critic=1", "--batch", "8", "--device", "cpu",
]  # fmt: skip


def start(*arguments: str) -> subprocess.Popen:
    paths = [ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "ganops", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(run: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    wanted = f'{{"step": {step}'
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "log.jsonl").exists() and wanted in (run / "log.jsonl").read_text():
            return
        time.sleep(0.02)
    pytest.fail(f"no log line for step {step}: {process.communicate()}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_cleanly(tmp_path, number) -> None:
    run = tmp_path / "run"
    process = start("train", "wgan-gp", "--steps", "100000", "--out", str(run), *SMALL,
                    "--set", "log_every=1", "--set", "checkpoint_every=0")  # fmt: skip
    wait_for_step(run, 3, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    name = signal.Signals(number).name
    assert f"stopped by {name} at step" in err
    assert f"ganops resume {run}" in err
    assert "step 1/100000" in err
    assert "s/kimg" in err
    assert "gp " in err
    step = int(checkpoint.latest(str(run))[-6:])
    assert step >= 3
    assert f"at step {step}" in err
    resumed = Trainer.resume(str(run), steps=step + 1, quiet=True).fit()
    assert resumed.position.step == step + 1


def test_kill_9_while_training_leaves_a_loadable_run(tmp_path) -> None:
    run = tmp_path / "run"
    process = start("train", "wgan-gp", "--steps", "100000", "--out", str(run), *SMALL,
                    "--set", "log_every=1", "--set", "checkpoint_every=1")  # fmt: skip
    wait_for_step(run, 5, process)
    process.kill()
    process.communicate()
    step = int(checkpoint.latest(str(run))[-6:])
    assert step >= 4
    resumed = Trainer.resume(str(run), steps=step + 2, quiet=True).fit()
    assert resumed.position.step == step + 2
    assert not [n for n in os.listdir(run / "checkpoints") if n.startswith(".")]


def test_help_and_mistakes_as_a_process() -> None:
    helped, wrong = start("--help"), start("train", "wgangp")
    out, _ = helped.communicate(timeout=60)
    assert helped.returncode == 0
    assert "resume" in out
    _, err = wrong.communicate(timeout=60)
    assert wrong.returncode == 2
    assert "Traceback" not in err
    assert "did you mean 'wgan-gp'" in err


def test_the_parser_does_not_import_torch() -> None:
    """`ganops --help` must answer at once: nothing under ganops.cli loads torch by itself."""
    code = (
        "import sys, types; package = types.ModuleType('ganops');"
        f"package.__path__ = [{ROOT + '/ganops'!r}]; sys.modules['ganops'] = package;"
        "import ganops.cli.commands; print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"

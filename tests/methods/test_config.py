"""Recipes as data: composition, YAML both ways, and errors that name the key."""

from __future__ import annotations

import pytest
import yaml

from ganops.methods import Recipe, config, recipe
from ganops.regularizers import GP
from ganops.trainers.config import TrainConfig


def test_yaml_round_trip_keeps_everything(tmp_path) -> None:
    made = recipe("wgan-gp", n_critic=3).replace(**{"penalty.center": 2.0, "ema.beta": 0.99})
    made = made + GP(weight=2.0, interval=4, one_sided=True)
    path = tmp_path / "recipe.yaml"
    path.write_text(made.to_yaml())
    assert Recipe.from_dict(config.load_yaml(str(path))) == made
    assert str(made).startswith("method: wgan-gp")


def test_scientific_notation_in_yaml_is_a_number() -> None:
    assert yaml.safe_load("1e-3") == "1e-3"  # why coerce() reads numbers from text
    made = recipe("wgan-gp").replace(**config.assignments(["optimizer_g.lr=1e-3"]))
    assert made.optimizer_g.lr == 1e-3


def test_composition_leaves_the_original_alone() -> None:
    base = recipe("wgan-gp")
    both = base + GP(weight=1.0)
    assert base.regularizers == ()
    assert both.regularizers == (GP(weight=1.0),)
    with pytest.raises(TypeError):
        base + 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_critik": 3}, "unknown setting 'n_critik'; did you mean 'n_critic'"),
        ({"penalty.wieght": 3}, "unknown setting 'penalty.wieght'; did you mean 'weight'"),
        ({"penalti.weight": 3}, "unknown setting 'penalti'; did you mean 'penalty'"),
        ({"n_critic.x": 3}, "unknown setting 'n_critic.x'"),
        ({"n_critic": 0}, "n_critic must be >= 1, got 0"),
        ({"n_critic": 2.5}, "n_critic must be of type int, got 2.5"),
        ({"n_critic": True}, "n_critic must be of type int, got True"),
        ({"penalty.weight": -1}, "penalty.weight must be >= 0"),
        ({"penalty.weight": "much"}, "penalty.weight must be a float"),
        ({"optimizer_g.betas": [0.5]}, "optimizer_g.betas must have 2 entries"),
        ({"optimizer_g.betas": [0.5, 1.0]}, r"optimizer_g.betas\[1\] must be .*< 1, got 1.0"),
        ({"optimizer_d.lr": 0}, "optimizer_d.lr must be > 0"),
        ({"optimizer_d.lr": float("nan")}, "optimizer_d.lr must be > 0"),
        ({"generator.norm": "bach"}, "generator.norm must be one of batch, none"),
        ({"generator": 3}, "generator must be a mapping"),
        ({"regularizers": [{"name": "gq"}]}, r"regularizers\[0\].name: unknown 'gq'; did you"),
        ({"penalty": {"name": "r1"}}, "penalty.name: unknown 'r1'"),
    ],
)
def test_errors_name_the_key(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        recipe("wgan-gp").replace(**changes)


def test_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown method 'wgan_gp'; did you mean 'wgan-gp'"):
        recipe("wgan_gp")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be >= 1"),
        ({"batch": -4}, "batch must be >= 1"),
        ({"nan": "ignore"}, "nan must be one of error, skip, rollback"),
        ({"stepz": 1}, "unknown setting 'stepz'; did you mean 'steps'"),
        ({"seed": -1}, "seed must be >= 0"),
    ],
)
def test_bad_run_settings(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        config.from_dict(TrainConfig, settings)


def test_assignments_and_differences() -> None:
    read = config.assignments(["a.b=[0.0, 0.9]", "c=null", "d=x=y"])
    assert read == {"a.b": [0.0, 0.9], "c": None, "d": "x=y"}
    for bad in ("justakey", "=3", "a={"):
        with pytest.raises(ValueError, match=r"KEY=VALUE|cannot read the value"):
            config.assignments([bad])
    assert config.differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 0}}) == [
        "a.c",
        "a.d",
    ]
    assert config.flatten({"a": {"b": {"c": 1}}, "d": [1]}) == {"a.b.c": 1, "d": [1]}


def test_unreadable_yaml_is_one_sentence(tmp_path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1")
    with pytest.raises(ValueError, match="is not valid YAML"):
        config.load_yaml(str(bad))
    bad.write_text("- 1")
    with pytest.raises(ValueError, match="must hold a mapping"):
        config.load_yaml(str(bad))
    with pytest.raises(ValueError, match="cannot read"):
        config.load_yaml(str(tmp_path / "none.yaml"))

"""TrainConfig: what is refused, in which words, and that a resolved config reads back equal."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lpverify.errors import UsageError
from lpverify.training.config import (
    KINDS,
    METHOD_KEYS,
    RANGES,
    TrainConfig,
    differing,
    from_dict,
    options,
    read_config,
    resolved,
)
from lpverify.training.methods import METHODS

CONFIGS = sorted((Path(__file__).parents[2] / "benchmarks" / "configs").glob("*.toml"))
PLAIN = {"data": "digits", "method": "pgd", "epochs": 10, "eps": 0.1}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_reads_back_equal(path: Path) -> None:
    config = read_config(path)
    assert from_dict(tomllib.loads(resolved(config))) == config


@pytest.mark.parametrize("method", sorted(METHODS))
def test_defaults_of_every_method_read_back_equal(method: str) -> None:
    config = TrainConfig(data="digits", method=method, epochs=1, eps=0.1)
    assert from_dict(tomllib.loads(resolved(config))) == config
    made = METHODS[method].from_config(config)
    assert {field.name: getattr(made, field.name) for field in fields(made)} == options(method)


def test_every_key_of_a_method_is_a_key_of_the_config() -> None:
    used = {name for method in METHODS for name in options(method)}
    assert used <= METHOD_KEYS
    assert set(RANGES) <= set(KINDS)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"epoch": 3}, "epoch: 3 is given to an unknown key; did you mean epochs?"),
    ({"zzz": 3}, "zzz: 3 is given to an unknown key; known are data, method"),
    ({"method": "ppgd"}, "method: 'ppgd' is not one of standard, pgd"),
    ({"norm": "1"}, "norm: '1' is not one of inf, 2"),
    ({"epochs": 1.5}, "epochs: 1.5 is not a whole number"),
    ({"epochs": True}, "epochs: True is not a whole number"),
    ({"epochs": 0}, "epochs: 0 must be >= 1"),
    ({"lr": "fast"}, "lr: 'fast' is not a finite number"),
    ({"lr": float("nan")}, "lr: nan is not a finite number"),
    ({"lr": 0.0}, "lr: 0.0 must be > 0"),
    ({"amp": 1}, "amp: 1 is not true or false"),
    ({"eps": -0.1}, "eps: -0.1 must be >= 0"),
    ({"validation": 0.9}, "validation: 0.9 must be >= 0 and <= 0.5"),
    ({"clip": [0, 1, 2]}, "clip: [0, 1, 2] is not a list of two numbers"),
    ({"clip": [1, 0]}, "clip: [1.0, 0.0] must be two rising numbers"),
    ({"std": [1.0, 0.0]}, "std: 0.0 must be > 0"),
    ({"share": 0.5}, "share: 0.5 has no effect with method 'pgd'; it is for "),
    ({"method": "standard", "attack_steps": 3}, "attack_steps: 3 has no effect with method 'standard'; it is for pgd"),
    ({"momentum": 0.9}, 'momentum: 0.9 has an effect only with optimizer = "sgd"; leave it out'),
    ({"momentum": 0.5}, 'momentum: 0.5 has an effect only with optimizer = "sgd"; leave it out'),
    ({"lr_steps": [3]}, 'lr_steps: [3.0] has an effect only with lr_schedule = "step"; leave it out'),
    ({"lr_schedule": "step"}, "lr_steps: [] must be rising epochs"),
    ({"lr_schedule": "step", "lr_steps": [5, 3]}, "lr_steps: [5.0, 3.0] must be rising epochs"),
    ({"eps_ramp": 3}, 'eps_ramp: 3.0 has an effect only with eps_schedule = "linear" or "smooth"; leave it out'),
    ({"eps_schedule": "linear"}, "eps_ramp: 0.0 leaves eps_schedule 'linear' no time"),
    ({"eps_schedule": "linear", "eps_ramp": 8, "eps_warmup": 3}, "eps_ramp: 8.0 ends the ramp after 11 epochs of 10"),
    ({"eps_schedule": "linear", "eps_ramp": 8, "eps_start": 0.2}, "eps_start: 0.2 must be <= eps, 0.1"),
    ({"early_stopping": "robust"}, "validation: 0.0 leaves early_stopping 'robust' nothing"),
    ({"patience": 3}, 'patience: 3 has an effect only with early_stopping = "clean" or "robust"; leave it out'),
    ({"arch": "tiny"}, "architecture: 'tiny' is not one of"),
    ({"method": "ibp", "eps": 0}, "eps: 0.0 leaves method 'ibp' nothing to bound"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_impossible_configs_are_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    values = {**PLAIN, **change}
    path = tmp_path / "c.toml"
    path.write_text("".join(f"{k} = {str(v).lower() if v is True else repr(v)}\n" for k, v in values.items()))
    with pytest.raises(UsageError) as caught:
        read_config(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: {message}") and "\n" not in text


@pytest.mark.parametrize("name", ["data", "method", "epochs"])
def test_missing_keys_are_named(name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: is missing"):
        from_dict({k: v for k, v in PLAIN.items() if k != name})


def test_files_that_are_no_toml_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("epochs = = 3")
    for path in (bad, tmp_path / "none.toml"):
        with pytest.raises(UsageError, match=r"none\.toml|bad\.toml") as caught:
            read_config(path)
        assert "not a readable TOML file" in str(caught.value)


def test_differing_names_the_first_key_that_differs() -> None:
    one, other = from_dict(PLAIN), from_dict({**PLAIN, "lr": 0.5})
    assert differing(resolved(one), one) == ""
    assert differing(resolved(one), other) == "lr = 0.001, not 0.5"
    assert differing(resolved(one), from_dict({**PLAIN, "data_dir": "elsewhere"})) == ""
    assert differing(resolved(one), from_dict({**PLAIN, "clip": [0, 1]})) == "clip = absent, not [0.0, 1.0]"


def test_a_config_from_before_a_key_existed_does_not_differ() -> None:
    one, other = from_dict(PLAIN), from_dict({**PLAIN, "attack_restarts": 3})
    old = resolved(one).replace("attack_restarts = 1\n", "")
    assert old != resolved(one)
    assert differing(old, one) == ""
    assert differing(old, other) == "attack_restarts = 1, not 3"

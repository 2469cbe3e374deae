"""The shipped networks: what header, config and card say is so, and attacks and bounds meet without contradiction."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import lpverify
from lpverify.attack import attack
from lpverify.bounds import METHODS
from lpverify.data import load_data
from lpverify.lowering import load_model
from lpverify.problem import Specification, ball
from lpverify.serialize import network_file
from lpverify.training.config import from_dict, read_config

CONFIGS = Path(__file__).resolve().parent.parent / "benchmarks" / "configs"
ASSETS = Path(lpverify.__file__).parent / "assets"
DEMO = "digits-demo"
NAMES = sorted({path.stem for path in ASSETS.glob("*.safetensors")} - {DEMO})
MNIST = "mnist-small-fgsm"
# Of the errors in the card, where that is not the radius of the training.
RADIUS = {MNIST: 0.1}
ERRORS = ("clean", "fgsm", "pgd", "dual", "certified")


def header(name: str) -> dict[str, str]:
    with safe_open(ASSETS / f"{name}.safetensors", "pt") as file:
        return dict(file.metadata())


def counts(name: str) -> dict[str, tuple[int, int]]:
    """The errors of a card: examples that are wrong, of so many."""
    card = (ASSETS / f"{name}.md").read_text(encoding="utf-8")
    return {
        error: (int(count), int(total))
        for error, count, total in re.findall(r"^\| (\w+) \| [\d.]+ % \| (\d+) \| (\d+) \|", card, re.MULTILINE)
    }


def test_the_networks_that_are_promised_are_shipped_with_config_and_card() -> None:
    digits = [f"digits-{method}" for method in ("dual", "ibp", "pgd", "standard")]
    assert set(NAMES) == {*digits, MNIST, "toy2d-dual", "toy2d-standard"}
    files = {f"{name}.{ending}" for name in NAMES for ending in ("md", "safetensors", "toml")}
    assert {p.name for p in ASSETS.iterdir()} == files | {f"{DEMO}.safetensors"}
    assert sum(p.stat().st_size for p in ASSETS.iterdir()) < 1_300_000


@pytest.mark.parametrize("name", NAMES)
def test_a_header_names_config_and_command(name: str) -> None:
    told, config = header(name), read_config(ASSETS / f"{name}.toml")
    assert from_dict(tomllib.loads((CONFIGS / f"{name}.toml").read_text())) == config
    assert told["command"] == f"lpverify train benchmarks/configs/{name}.toml --out runs/{name}"
    assert (told["arch"], told["method"], told["data"]) == (config.arch, config.method, config.data)
    assert (float(told["eps"]), json.loads(told["clip"])) == (config.eps, config.clip and list(config.clip))
    card = (ASSETS / f"{name}.md").read_text(encoding="utf-8")
    assert f"Errors at eps {RADIUS.get(name, config.eps):g} in raw input units" in card and told["command"] in card


def wrong(name: str, data_dir: Path | None = None) -> tuple[int, int]:
    """The examples that a network gets wrong, in float32, and all examples."""
    data = load_data(name.split("-")[0], data_dir=data_dir)
    network = load_model(ASSETS / f"{name}.safetensors").to(torch.float32)
    outputs = network.forward(torch.from_numpy(data.x).flatten(1))
    return int((outputs.argmax(1) != torch.as_tensor(data.y)).sum()), len(data)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_about_the_network_and_its_errors_are_ordered(name: str) -> None:
    network, told = load_model(ASSETS / f"{name}.safetensors"), counts(name)
    assert f"- sha256 {network_file(network)[1]}\n" in (ASSETS / f"{name}.md").read_text(encoding="utf-8")
    assert tuple(told) == ERRORS and len({total for _, total in told.values()}) == 1
    clean, fgsm, pgd, dual, certified = (count for count, _ in told.values())
    assert clean <= fgsm <= pgd <= certified <= dual


@pytest.mark.parametrize("name", [name for name in NAMES if name != MNIST])
def test_the_clean_error_of_a_card_is_found_again(name: str) -> None:
    assert counts(name)["clean"] == wrong(name)


@pytest.mark.shared
def test_the_clean_error_of_the_mnist_card_is_found_again(shared_data: Path) -> None:
    assert counts(MNIST)["clean"] == wrong(MNIST, shared_data / "datasets")


def test_the_header_of_the_demo_has_its_command_and_its_clean_error() -> None:
    assert header(DEMO)["command"].startswith("python benchmarks/train_digits.py --eps 0.1 ")
    count, total = wrong(DEMO)
    assert header(DEMO)["clean_error"] == f"{count}/{total} on the test split"
    assert count < 40


def test_robust_training_pays() -> None:
    certified = {name: counts(name)["certified"][0] for name in NAMES}
    assert certified["toy2d-dual"] == 0 < 3 < certified["toy2d-standard"]
    for method in ("pgd", "dual", "ibp"):
        assert certified[f"digits-{method}"] < 0.7 * certified["digits-standard"]


def test_of_the_demo_at_a_sixteenth_all_three_kinds_of_example_occur() -> None:
    network, data = load_model(ASSETS / f"{DEMO}.safetensors").to(torch.float32), load_data("digits")
    x = torch.from_numpy(data.x).flatten(1)
    region = ball(x, 0.0625, "inf", (0.0, 1.0))
    spec = Specification.label(torch.as_tensor(data.y), 10, torch.float32)
    falsified = attack(network, region, spec, start=x).falsified
    proved = METHODS["crown"]().bound(network, region, spec).margins.amin(1) > 0
    assert not bool((falsified & proved).any())
    # Enough of each kind for a demonstration: misclassified and falsified, proved, and neither.
    assert int(falsified.sum()) > 40 and int(proved.sum()) > 300
    assert 0 < int((~falsified & ~proved).sum()) < 40

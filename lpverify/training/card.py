"""The model card of a run folder: what the network is, where it comes from, and its errors with their commands.

``card.json`` is for programs, ``card.md`` the same for people.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import torch

from lpverify.data import Examples, load_data
from lpverify.describe import node_rows, totals
from lpverify.errors import ModelError
from lpverify.files import write_atomic
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.training.checkpoint import BEST
from lpverify.training.config import TrainConfig
from lpverify.training.evaluate import CERTIFIED, Evaluation, Protocol, Watch, evaluate, unwatched
from lpverify.training.loop import SUMMARY

CARD_JSON, CARD_MD, CONFIG = "card.json", "card.md", "config.toml"
# Of so many examples the certified error is measured at the end of a training, with so many seconds for each.
CERTIFY, CERTIFY_SECONDS = 100, 3.0


def write_card(folder: Path, model: Path, network: Network, evaluation: Evaluation) -> dict[str, Any]:
    """Write ``card.json`` and ``card.md`` into a run folder; returns the content of the former.

    Args:
        folder: the run folder; its ``config.toml`` and ``summary.json``, if there, are taken as those of the training.
        model: the checkpoint that was evaluated.
        network: the lowered network.

    Raises:
        ResourceError: if the disk refuses.
    """
    config = folder / CONFIG
    card = {
        "model": str(model),
        "checkpoint_sha256": _digest(model),
        "header": header(model),
        "architecture": {"nodes": [list(row) for row in node_rows(network)], "totals": totals(network)},
        "config": tomllib.loads(config.read_text(encoding="utf-8")) if config.is_file() else None,
        "epochs": _epochs(folder / SUMMARY),
        "evidence": str(folder / CERTIFIED) if (folder / CERTIFIED).is_dir() else None,
        **evaluation.record(),
    }
    write_atomic(folder / CARD_JSON, (json.dumps(card, indent=2, allow_nan=False) + "\n").encode())
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    write_atomic(folder / CARD_MD, markdown(card, text).encode())
    return card


def has_card(folder: Path) -> bool:
    """Whether the folder's card is about its best checkpoint as it is now."""
    try:
        card = json.loads((folder / CARD_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(card, dict) and card.get("checkpoint_sha256") == _digest(folder / BEST)


def _epochs(file: Path) -> dict[str, Any] | None:
    """What a training's summary says of its best and its last epoch; None where it was not stopped early."""
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(summary, dict) or not summary.get("best"):
        return None
    return {name: summary[name] for name in ("best", "last", "robust_overfitting", "robust_overfitting_of")}


def _epoch_lines(epochs: dict[str, Any]) -> list[str]:
    """The best and the last epoch in a table, and how far they are apart."""
    kinds = [(part, column) for part in ("validation", "test") for column in ("error", "robust_error")]
    kinds = [kind for kind in kinds if "_".join(kind) in epochs["last"]]
    heads = [f"{part}: {'clean' if column == 'error' else 'robust'} error" for part, column in kinds]
    lines = [
        "## Best and last epoch",
        "",
        "Errors by the training method's own measure, of the first examples of each part (`eval_limit`).",
        "",
        f"| epoch | {' | '.join(heads)} |",
        "|---" * (1 + len(heads)) + "|",
    ]
    for name in ("best", "last"):
        values = [epochs[name].get("_".join(kind)) for kind in kinds]
        shown = " | ".join("-" if value is None else f"{100 * value:.2f} %" for value in values)
        lines.append(f"| {name}: {epochs[name]['epoch']} | {shown} |")
    if epochs["robust_overfitting"] is not None:
        lines += ["", f"Robust overfitting: the last epoch's {epochs['robust_overfitting_of']} is "
                  f"{100 * epochs['robust_overfitting']:+.2f} points from the best one's."]  # fmt: skip
    return [*lines, ""]


def _digest(file: Path) -> str | None:
    """The SHA-256 of a model file; None of a folder."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def make_card(
    folder: Path,
    config: TrainConfig,
    *,
    certify: str | None = None,
    timeout: float = CERTIFY_SECONDS,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Measure a finished run's best checkpoint as its config says, on its test examples, and write the card.

    Args:
        folder: holds best.safetensors.
        certify: the examples of the certified error; None: the first CERTIFY, or all where there are fewer.
        timeout: seconds for each of them.
        watch: see ``evaluate``.
    """
    model = folder / BEST
    protocol, examples = protocol_of(config, certify, timeout)
    network = load_model(model, arch=config.arch if ":" in config.arch else None)
    found = evaluate(network, examples, protocol, model=str(model), out=folder, watch=watch)
    return write_card(folder, model, network, found)


def protocol_of(config: TrainConfig, certify: str | None, timeout: float) -> tuple[Protocol, Examples]:
    """How a finished run is measured, see ``make_card``, and its test examples."""
    split = "train" if config.data.endswith(".npz") else "test"
    data_dir = None if config.data_dir is None else Path(config.data_dir)
    examples = load_data(config.data, data_dir=data_dir, split=split)
    clip = None if config.clip is None else (repr(config.clip[0]), repr(config.clip[1]))
    protocol = Protocol(
        repr(config.eps), config.norm, clip, config.data, data_dir, split,
        certify=certify or f"0:{min(CERTIFY, len(examples))}", timeout=timeout,
        device="cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu",
        source=() if ":" not in config.arch else ("--arch", config.arch),
    )  # fmt: skip
    return protocol, examples


def header(model: Path) -> dict[str, str]:
    """The text metadata of a ``.safetensors`` file, where training writes the command and more; empty for others.

    Raises:
        ModelError: if the file is damaged.
    """
    if model.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(model), "pt") as file:
            return dict(sorted((file.metadata() or {}).items()))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{model}: cannot be read ({' '.join(str(error).split())})") from None


def markdown(card: dict[str, Any], config: str) -> str:
    """The card as Markdown; ``config`` is the text of the training's config, empty if there is none."""
    told = card["header"]
    lines = [*error_lines(card), *command_lines(card, told.get("command"))]
    if card["epochs"] is not None:
        lines += _epoch_lines(card["epochs"])
    lines += ["## Network", "", *(f"- {line}" for line in card["architecture"]["totals"])]
    lines += [f"- {key}: {value}" for key, value in told.items() if key != "command"]
    lines += ["", "| node | kind | reads | shape | maps | parameters |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in card["architecture"]["nodes"]]
    return "\n".join([*lines, *origin_lines(card, config)]) + "\n"


def error_lines(card: dict[str, Any]) -> list[str]:
    """A card's title, and its errors in a table."""
    ask = card["protocol"]
    clip = "no clip" if ask["clip"] is None else f"clip {ask['clip'][0]} to {ask['clip'][1]}"
    return [
        f"# {Path(card['model']).name}",
        "",
        f"Errors at eps {ask['eps']} in raw input units, norm {ask['norm']}, {clip}, on {card['data']['source']} "
        f"({ask['split']}).",
        "",
        "| error | share | count | of | meaning |",
        "|---|---|---|---|---|",
        *(f"| {name} | {100 * e['error']:.2f} % | {e['count']} | {e['total']} | {e['meaning']} |"
          for name, e in card["errors"].items()),
        "",
        f"The certified error: at most {ask['timeout']:g} seconds an example.",
        "",
    ]  # fmt: skip


def command_lines(card: dict[str, Any], training: str | None) -> list[str]:
    """The commands that make the numbers of a card again."""
    lines = ["## Commands", ""]
    if training:
        lines += ["Training:", "", f"    {training}", ""]
    for name, error in card["errors"].items():
        lines += [f"{name} ({error['seconds']:.1f} s):", "", f"    {error['command']}", ""]
    if card["evidence"] is not None:
        lines += ["The evidence of the certified error again:", "", f"    lpverify check {card['evidence']}", ""]
    return lines


def origin_lines(card: dict[str, Any], config: str) -> list[str]:
    """A card's end: config, environment and data."""
    lines = ["", "## Config", "", "```toml", config.rstrip("\n"), "```"] if config else []
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    return [
        *lines, "", "## Environment", "",
        f"Python {card['python']}, device {card['device']}, threads {card['threads']}.", f"{versions}.",
        f"Data: {card['data']['source']}, sha256 {card['data']['sha256']}.",
    ]  # fmt: skip

"""Train the network of the demo, digits-demo: adversarial training with a share of interval bound training.

    python benchmarks/train_digits.py --out lpverify/assets/digits-demo.safetensors

The loss is (1 - share) * cross-entropy at a PGD point + share * cross-entropy at the interval bounds' worst
logits, over l-infinity balls whose radius grows to ``--eps`` during the first half of training; pixels are
in [0, 1] and the balls are kept inside it. The train split is the one of ``lpverify.data``.

``lpverify train`` does the same with method mtl-ibp (``configs/digits-mtl-ibp.toml``), but draws other random numbers.
This script stays because the demo, many tests and measurements of ``README.md`` here are about the network that it
made, of which nearly all is decided in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from lpverify.data import load_data

ARCH = "cnn(1x8x8; conv 8 3 1 1; conv 16 4 2 1; fc 32; fc 10)"


def make_model() -> nn.Sequential:
    """The network that ARCH describes."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def interval_logits(model: nn.Sequential, lower: Tensor, upper: Tensor, y: Tensor) -> Tensor:
    """The worst logits by interval arithmetic: the label's lower bound, the others' upper bounds; (B, 10)."""
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            center = layer(center)
            radius = F.conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding)
        elif isinstance(layer, nn.Linear):
            center, radius = layer(center), radius @ layer.weight.abs().T
        elif isinstance(layer, nn.ReLU):
            low, high = (center - radius).relu(), (center + radius).relu()
            center, radius = (low + high) / 2, (high - low) / 2
        else:
            center, radius = layer(center), layer(radius)
    own = F.one_hot(y, 10).bool()
    return torch.where(own, center - radius, center + radius)


def pgd_point(model: nn.Sequential, x: Tensor, y: Tensor, eps: float, steps: int, noise: Tensor) -> Tensor:
    """A point of the ball with a large cross-entropy."""
    lower, upper = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    adversarial = lower + noise * (upper - lower)
    for _ in range(steps):
        adversarial.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(adversarial), y), adversarial)
        adversarial = (adversarial.detach() + 0.35 * eps * slope.sign()).clamp(lower, upper)
    return adversarial.detach()


def train(args: argparse.Namespace) -> nn.Sequential:
    """The trained model; deterministic for one seed, torch version and thread count."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    model = make_model()
    data = load_data("digits", split="train")
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    for epoch in range(args.epochs):
        ramp = min(1.0, 2 * epoch / args.epochs)
        eps, total = args.eps * ramp, 0.0
        for batch in torch.randperm(len(x)).split(64):
            noise = torch.rand(len(batch), 1, 8, 8)
            adversarial = pgd_point(model, x[batch], y[batch], eps, 5, noise)
            lower, upper = (x[batch] - eps).clamp(min=0), (x[batch] + eps).clamp(max=1)
            worst = F.cross_entropy(interval_logits(model, lower, upper, y[batch]), y[batch])
            attacked = F.cross_entropy(model(adversarial), y[batch])
            loss = (1 - args.share) * attacked + args.share * worst
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        scheduler.step()
        print(f"epoch {epoch + 1}/{args.epochs}  eps {eps:.4f}  loss {total / len(x):.4f}", file=sys.stderr)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eps", type=float, default=0.1, help="largest radius, in units of a pixel in [0, 1]")
    parser.add_argument("--share", type=float, default=0.01, help="share of the interval bounds' loss")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = train(args)
    test = load_data("digits", split="test")
    with torch.no_grad():
        wrong = int((model(torch.from_numpy(test.x)).argmax(1) != torch.from_numpy(test.y)).sum())
    options = [v for k in ("eps", "share", "epochs", "lr", "seed") for v in (f"--{k}", str(getattr(args, k)))]
    header = {
        "arch": ARCH,
        "input_shape": json.dumps([1, 8, 8]),
        "eps": str(args.eps),
        "clean_error": f"{wrong}/{len(test.y)} on the test split",
        "command": shlex.join(["python", "benchmarks/train_digits.py", *options, "--out", args.out.name]),
    }
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, args.out, metadata=header)
    print(f"{args.out}: clean error {wrong} of {len(test.y)} test images", file=sys.stderr)


if __name__ == "__main__":
    main()

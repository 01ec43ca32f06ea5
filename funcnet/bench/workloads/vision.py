"""Networks over images: a small convolutional one, torchvision's ResNets and its vision transformer."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from torch import nn

from funcnet.bench.workloads.workload import Workload, classified, cross_entropy, pick

__all__ = ["Sizes", "cnn", "convolutional", "resnet", "resnet18", "resnet50", "transformer", "vit_tiny"]

Sizes = Mapping[str, Mapping[str, Any]]


def convolutional(channels: tuple[int, ...], side: int, classes: int) -> nn.Sequential:
    """Stages of convolution, BatchNorm, ReLU and a halving MaxPool, and a linear layer."""
    layers: list[nn.Module] = []
    for count, following in pairwise(channels):
        conv = nn.Conv2d(count, following, 3, padding=1, bias=False)  # the BatchNorm has the bias
        layers += [conv, nn.BatchNorm2d(following), nn.ReLU(), nn.MaxPool2d(2)]
        side //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side * side, classes))


def resnet(layers: tuple[int, ...], bottleneck: bool, classes: int) -> nn.Module:
    """torchvision's ResNet with basic or bottleneck blocks."""
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    module: nn.Module = ResNet(Bottleneck if bottleneck else BasicBlock, list(layers), num_classes=classes)
    return module


def transformer(side: int, patch: int, layers: int, heads: int, width: int, classes: int) -> nn.Module:
    """torchvision's vision transformer without dropout."""
    from torchvision.models import VisionTransformer

    module: nn.Module = VisionTransformer(side, patch, layers, heads, width, 4 * width, num_classes=classes)
    return module


def cnn(machine: str) -> Workload:
    """Two stages on 32x32 images, on either machine: what is measured is overhead."""
    sizes = {"channels": (3, 32, 64), "side": 32, "classes": 10, "batch": 64}
    tiny = {"channels": (3, 4, 6), "side": 12, "classes": 5, "batch": 8}
    return _images("cnn", machine, convolutional, {"cpu": sizes, "gpu": sizes, "smoke": tiny}, "cnn")


def resnet18(machine: str) -> Workload:
    """ResNet-18 with ten classes."""
    # At a rate of 1e-4 the loss falls to a hundredth in six steps, and torch's own ways are 0.3 % apart.
    return replace(_resnet("resnet18", machine, {"layers": (2, 2, 2, 2), "bottleneck": False}), rate=1e-5)


def resnet50(machine: str) -> Workload:
    """ResNet-50 with ten classes."""
    # On 64x64 images its last normalizations are over 32 numbers a channel: torch's own ways are 11 % apart after four
    # steps. On these they are 5 % apart at a rate of 1e-4, at which the loss falls to a hundredth in ten steps, and
    # 0.4 % at 1e-5.
    workload = _resnet("resnet50", machine, {"layers": (3, 4, 6, 3), "bottleneck": True}, side=128)
    return replace(workload, rate=1e-6)


def vit_tiny(machine: str) -> Workload:
    """A vision transformer of 12 layers, 192 wide."""
    shape = {"layers": 12, "heads": 3, "width": 192}
    small = {"side": 64, "patch": 8, **shape, "classes": 10, "batch": 8}
    large = {"side": 224, "patch": 16, **shape, "classes": 1000, "batch": 256}
    tiny = {"side": 24, "patch": 8, "layers": 2, "heads": 3, "width": 24, "classes": 5, "batch": 4}
    return _images("vit-tiny", machine, transformer, {"cpu": small, "gpu": large, "smoke": tiny}, "vit")


def _resnet(name: str, machine: str, shape: Mapping[str, Any], side: int = 64) -> Workload:
    small = {**shape, "side": side, "classes": 10, "batch": 8}
    large = {**small, "side": 224, "batch": 256}
    tiny = {**small, "side": 64, "layers": (1, 2, 1, 1), "batch": 4}
    return _images(name, machine, resnet, {"cpu": small, "gpu": large, "smoke": tiny}, "resnet")


def _images(name: str, machine: str, module: Callable[..., nn.Module], sizes: Sizes, jax: str) -> Workload:
    """A classifier of images; `module` is called with the sizes that it has arguments for."""
    settings = pick(machine, name, sizes)
    side, size = settings["side"], settings["batch"]
    data = {"batch", "side"} if module is resnet else {"batch"}  # a ResNet takes images of any size
    return Workload(
        name,
        partial(module, **{key: value for key, value in settings.items() if key not in data}),
        partial(classified, shape=(size, 3, side, side), classes=settings["classes"]),
        cross_entropy,
        size,
        "image",
        f"funcnet.bench.workloads.in_jax.vision:{jax}",
        settings=settings,
    )

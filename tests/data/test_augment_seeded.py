"""torchvision.transforms.v2 under `random.seeded`: the key decides, and nothing else does."""

import threading

import pytest
import torch
from torchvision.transforms import v2

from funcnet import random
from tests.data.augment_cases import images

TRANSFORMS = {
    "AugMix": lambda: v2.AugMix(),
    "AutoAugment": lambda: v2.AutoAugment(),
    "ColorJitter": lambda: v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    "ElasticTransform": lambda: v2.ElasticTransform(20.0, 1.0),
    "GaussianBlur": lambda: v2.GaussianBlur(3),
    "GaussianNoise": lambda: v2.GaussianNoise(),
    "RandAugment": lambda: v2.RandAugment(),
    "RandomAffine": lambda: v2.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 5),
    "RandomApply": lambda: v2.RandomApply([v2.ColorJitter(0.5)], 0.5),
    "RandomChannelPermutation": lambda: v2.RandomChannelPermutation(),
    "RandomChoice": lambda: v2.RandomChoice([v2.RandomRotation(10), v2.ColorJitter(0.5)]),
    "RandomCrop": lambda: v2.RandomCrop(8, padding=3),
    "RandomErasing": lambda: v2.RandomErasing(value="random"),
    "RandomGrayscale": lambda: v2.RandomGrayscale(0.5),
    "RandomHorizontalFlip": lambda: v2.RandomHorizontalFlip(),
    "RandomInvert": lambda: v2.RandomInvert(),
    "RandomOrder": lambda: v2.RandomOrder([v2.ColorJitter(0.5), v2.RandomSolarize(0.5, 0.7), v2.RandomInvert()]),
    "RandomPerspective": lambda: v2.RandomPerspective(),
    "RandomPhotometricDistort": lambda: v2.RandomPhotometricDistort(),
    "RandomPosterize": lambda: v2.RandomPosterize(3),
    "RandomResize": lambda: v2.RandomResize(4, 12),
    "RandomResizedCrop": lambda: v2.RandomResizedCrop(6),
    "RandomRotation": lambda: v2.RandomRotation(30),
    "RandomShortestSize": lambda: v2.RandomShortestSize([5, 7, 9]),
    "RandomSolarize": lambda: v2.RandomSolarize(0.5),
    "RandomVerticalFlip": lambda: v2.RandomVerticalFlip(),
    "RandomZoomOut": lambda: v2.RandomZoomOut(),
    "ScaleJitter": lambda: v2.ScaleJitter((16, 16), (0.5, 2.0)),
    "TrivialAugmentWide": lambda: v2.TrivialAugmentWide(),
    "MixUp": lambda: v2.MixUp(num_classes=3),
    "CutMix": lambda: v2.CutMix(num_classes=3),
}
BYTES = {"AugMix", "AutoAugment", "RandAugment", "RandomPosterize", "TrivialAugmentWide"}


def run(name, seed):
    x = images(21, 4, dtype=torch.uint8 if name in BYTES else torch.float32)
    given = (x, torch.arange(4) % 3) if name in ("MixUp", "CutMix") else (x,)
    with random.seeded(random.key(seed)):
        out = TRANSFORMS[name]()(*given)
    return list(out) if isinstance(out, tuple) else [out]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_key_decides(name):
    runs = [run(name, seed) for seed in range(12)]
    global_state = torch.get_rng_state()
    torch.manual_seed(123)  # another state of the global generator changes nothing
    assert all(same(run(name, seed), runs[seed]) for seed in range(12))
    torch.set_rng_state(global_state)
    assert any(not same(runs[0], other) for other in runs[1:])


def test_images_with_keys_of_their_own():
    transform = v2.Compose([v2.RandomResizedCrop(6), v2.ColorJitter(0.5), v2.RandomErasing()])

    def augmented(key, image):
        with random.seeded(key):
            return transform(image)

    keys = random.split(random.key(3), 5)
    x = images(22, 5)
    whole = [augmented(k, image) for k, image in zip(keys, x, strict=True)]
    backwards = [augmented(keys[i], x[i]) for i in reversed(range(5))][::-1]
    assert same(whole, backwards)


def test_other_threads_are_not_affected():
    """Threads under keys of their own, beside one that draws from the global generator."""
    expected = {seed: run("RandomResizedCrop", seed) for seed in range(4)}
    wrong, started, done = [], threading.Barrier(5), threading.Event()
    drawn = []

    def keyed(seed):
        started.wait()
        for _ in range(10):
            if not same(run("RandomResizedCrop", seed), expected[seed]):
                wrong.append(seed)

    def plain():
        started.wait()
        while not done.is_set():
            drawn.append(torch.rand(()).item())

    state = torch.get_rng_state()
    threads = [threading.Thread(target=keyed, args=(seed,)) for seed in range(4)]
    outside = threading.Thread(target=plain)
    for thread in (*threads, outside):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    outside.join()
    torch.set_rng_state(state)
    again = [torch.rand(()).item() for _ in range(min(len(drawn), 100))]
    torch.set_rng_state(state)
    assert not wrong
    assert drawn[:100] == again

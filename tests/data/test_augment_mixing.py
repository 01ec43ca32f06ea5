"""mixup and cutmix: a loop over the images, torchvision's, and what targets must be."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from funcnet import jit, random, vmap
from funcnet.data.augment import cutmix, mixup
from tests.data.augment_cases import images

seeds = st.integers(0, 2**31 - 1)
both = pytest.mark.parametrize("mix", [mixup, cutmix])
LABELS = random.randint(random.key(51), (6,), 0, 5, torch.int64)
SOFT = random.dirichlet(random.key(52), torch.ones(5), (6,))


def parts(key, count, alpha, number):
    keys = random.split(key, number)
    order, (u, v) = random.permutation(keys[0], count).tolist(), random.uniform(keys[1], (2, count)).double().tolist()
    weights = []
    for a, b in zip(u, v, strict=True):
        # Student's t of 2 alpha degrees of freedom by the polar method, and what becomes of it
        t = math.sqrt(2 * alpha * ((1 - a) ** (-1 / alpha) - 1)) * math.cos(2 * math.pi * b)
        weights.append(0.5 + t / (2 * math.sqrt(2 * alpha + t * t)))
    return order, weights, keys[-1]


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 3.0, 50.0])
def test_weights_follow_the_beta_distribution(alpha):
    labels = torch.arange(5000)[:, None].double()
    _, mixed = mixup(random.key(5), images(0, 1, 1, 1, 1).expand(5000, -1, -1, -1), labels, alpha)
    others = labels[random.permutation(random.split(random.key(5))[0], 5000)]
    moved = labels != others
    weights = ((mixed - others) / (labels - others))[moved]
    # Where alpha is small many weights are 0 or 1 to the last digit of float32.
    law = scipy.stats.beta(alpha, alpha)
    inner = weights[(weights > 1e-3) & (weights < 1 - 1e-3)]
    assert abs(len(inner) / len(weights) - (1 - 2 * law.cdf(1e-3))) < 4 * (0.25 / len(weights)) ** 0.5
    below, above = law.cdf([1e-3, 1 - 1e-3])
    spread = (law.cdf(inner.numpy()) - below) / (above - below)
    assert scipy.stats.kstest(spread, "uniform", method="asymp").pvalue > 1e-3


@given(seed=seeds, alpha=st.sampled_from([0.2, 1.0, 4.0]), soft=st.booleans())
def test_mixup_is_a_loop(seed, alpha, soft):
    key, x = random.key(seed), images(0, 6)
    order, weights, _ = parts(key, 6, alpha, 2)
    rows = SOFT if soft else torch.eye(5)[LABELS]
    pixels = [w * x[i] + (1 - w) * x[j] for i, (j, w) in enumerate(zip(order, weights, strict=True))]
    targets = [w * rows[i] + (1 - w) * rows[j] for i, (j, w) in enumerate(zip(order, weights, strict=True))]
    found = mixup(key, x, SOFT) if alpha == 0.2 and soft else mixup(key, x, SOFT if soft else LABELS, alpha, 5)
    torch.testing.assert_close(found, (torch.stack(pixels), torch.stack(targets)))


@given(seed=seeds, alpha=st.sampled_from([0.2, 1.0, 4.0]), soft=st.booleans())
def test_cutmix_is_a_loop(seed, alpha, soft):
    key, x = random.key(seed), images(1, 6)
    order, weights, place = parts(key, 6, alpha, 3)
    middles = random.uniform(place, (2, 6)).tolist()
    rows = SOFT if soft else torch.eye(5)[LABELS]
    pixels, targets = x.clone(), torch.empty(6, 5)
    for i, (j, w) in enumerate(zip(order, weights, strict=True)):
        half = 0.5 * (1 - torch.tensor(w)).sqrt()
        y, above = int(middles[0][i] * 8), int(half * 8)
        z, aside = int(middles[1][i] * 9), int(half * 9)
        left = torch.zeros(8, 9)
        left[max(y - above, 0) : y + above, max(z - aside, 0) : z + aside] = 1
        pixels[i] = torch.where(left.bool(), x[j], x[i])
        targets[i] = rows[i] + left.mean() * (rows[j] - rows[i])
    found = cutmix(key, x, SOFT if soft else LABELS, alpha, 5)
    torch.testing.assert_close(found, (pixels, targets))


@both
@given(seed=seeds, alpha=st.floats(0.05, 8.0))
def test_targets_are_what_the_pixels_show(mix, seed, alpha):
    """Image i is white in channel i alone, so that the means of the channels are the shares of the classes."""
    squares = torch.eye(5)[:, :, None, None].expand(5, 5, 6, 7)
    found, targets = mix(random.key(seed), squares, torch.arange(5), alpha, 5)
    torch.testing.assert_close(found.mean((2, 3)), targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(5))
    assert (targets >= 0).all()


@both
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64], ids=str)
def test_dtypes(mix, dtype):
    x = images(2, 6, dtype=dtype)
    found, targets = mix(random.key(0), x, LABELS, classes=5)
    assert (found.dtype, targets.dtype) == (dtype, torch.float32)
    wide, _ = mix(random.key(0), x.double(), LABELS, classes=5)
    tolerance = 0.5 + 1e-3 if dtype == torch.uint8 else torch.finfo(dtype).eps
    assert (found.double() - wide).abs().max() <= tolerance
    assert mix(random.key(0), x, SOFT.double())[1].dtype == torch.float64
    assert torch.equal(mix(random.key(0), x, LABELS.byte(), classes=5)[1], targets)


@both
def test_transforms_and_compilation(mix):
    x, keys = torch.stack([images(i, 6) for i in range(3)]), random.split(random.key(1), 3)
    looped = [mix(k, batch, LABELS, 1.0, 5) for k, batch in zip(keys, x, strict=True)]
    stacked = tuple(map(torch.stack, zip(*looped, strict=True)))
    mapped = vmap(lambda k, batch: mix(k, batch, LABELS, 1.0, 5))(keys, x)
    torch.testing.assert_close(mapped, stacked)
    compiled = jit(lambda k, batch, labels: mix(k, batch, labels, 1.0, 5), backend="aot_eager")
    torch.testing.assert_close(compiled(keys[0], x[0], LABELS), looped[0])
    wide = images(3, 6, dtype=torch.float64).requires_grad_()
    labels = SOFT.double().requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert gradcheck(lambda x, y: mix(keys[0], x, y), (wide, labels), fast_mode=True, check_forward_ad=True)


@both
def test_nothing_given_is_changed(mix):
    x, labels = images(4, 6), LABELS.clone()
    before = x.clone()
    first = mix(random.key(2), x, labels, classes=5)
    again = mix(random.key(2), x, labels, classes=5)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    first[0].zero_()
    assert torch.equal(x, before)
    assert torch.equal(labels, LABELS)
    assert not torch.equal(again[0], mix(random.key(3), x, labels, classes=5)[0])


def test_a_small_alpha_leaves_images_almost_whole():
    x, labels = images(5, 512, 1, 2, 2), torch.arange(512)
    purity = [mixup(random.key(3), x, labels, alpha, 512)[1].amax(1).mean() for alpha in (0.05, 0.4, 8.0)]
    assert purity[0] > 0.95 > purity[1] > 0.75 > purity[2] > 0.5


@both
@pytest.mark.parametrize(
    ("labels", "arguments", "error", "message"),
    [
        (LABELS + 1, {"classes": 5}, ValueError, r"labels from \d to 5 and classes=5: they count from 0 to 4"),
        (LABELS - 5, {"classes": 5}, ValueError, r"labels from -5"),
        (LABELS, {}, ValueError, r"how many classes there are: write classes=10"),
        (LABELS[:5], {"classes": 5}, ValueError, r"shape \(5,\) for 6 images: integers of shape \(6,\)"),
        (SOFT, {"classes": 4}, ValueError, r"classes=4 for labels of shape \(6, 5\)"),
        (SOFT[0, 0], {"classes": 4}, ValueError, r"labels of shape \(\) for 6 images"),
        (SOFT.long(), {}, TypeError, r"soft ones are floating"),
        (SOFT[:, 0], {"classes": 5}, TypeError, r"torch\.float32 and shape \(6,\): classes are integers"),
        ([0, 1], {"classes": 5}, TypeError, r"labels as a tensor, and got list\. Write torch\.tensor\(labels\)"),
        (LABELS, {"classes": 5, "alpha": 0.0}, ValueError, r"alpha=0\.0: the weights follow Beta"),
    ],
)
def test_wrong_arguments(mix, labels, arguments, error, message):
    with pytest.raises(error, match=rf"{mix.__name__} .*{message}"):
        mix(random.key(0), images(0, 6), labels, **arguments)


@both
def test_wrong_images_and_keys(mix):
    with pytest.raises(ValueError, match=r"takes images of shape"):
        mix(random.key(0), images(0, 6)[0], LABELS, classes=5)
    with pytest.raises(ValueError, match=rf"random\.{mix.__name__} needs a key.*a batch of keys"):
        mix(random.split(random.key(0), 6), images(0, 6), LABELS, classes=5)


@both
def test_the_key_is_used_up_once(mix):
    with random.check_reuse():
        found = mix(random.key(7), images(0, 6), LABELS, classes=5)
    torch.testing.assert_close(found, mix(random.key(7), images(0, 6), LABELS, classes=5), rtol=0, atol=0)

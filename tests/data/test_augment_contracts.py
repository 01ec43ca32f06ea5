"""What every augmentation keeps: the law of its keys, dtypes, transforms, compilation, gradients, purity."""

import threading
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from funcnet import grad, jit, random, vmap
from funcnet.data import augment
from funcnet.data.augment.arguments import exact
from tests.data.augment_cases import CASES, images

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
seeds = st.integers(0, 2**31 - 1)
every = pytest.mark.parametrize("name", CASES)


def close(case, found, expected):
    """To the bit where pixels are moved; else within the rounding of float32, and one level of uint8."""
    if case.exact:
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    elif found.dtype == torch.uint8:
        torch.testing.assert_close(found, expected, rtol=0, atol=1)
    else:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)


@every
@given(seed=seeds, count=st.integers(1, 6))
def test_each_image_is_that_of_its_own_key_alone(name, seed, count):
    case, key = CASES[name], random.key(seed)
    x = images(seed % 5, count, case.channels)
    keys = random.split(key, count)
    found = case.f(key, x)
    close(case, case.f(keys, x), found)
    for i in range(count):
        close(case, case.f(keys[i : i + 1], x[i : i + 1])[0], found[i])
    order = random.permutation(key, count)
    close(case, case.f(keys[order], x[order]), found[order])


@every
def test_images_of_one_batch_differ_in_their_draws(name):
    case = CASES[name]
    x = images(0, 1, case.channels).expand(64, -1, -1, -1)
    found = case.f(random.key(1), x)
    assert len({bytes(image.numpy().tobytes()) for image in found}) > 1
    assert not torch.equal(found, case.f(random.key(2), x))


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_dtype_stays_and_the_values_are_those_of_float64(name, dtype):
    case, key = CASES[name], random.key(3)
    if name == "each" and dtype == torch.uint8:
        pytest.skip("the function of this case is one of floating images")
    x = images(1, 5, case.channels, dtype=dtype)
    # Painted white, which is 255 of uint8.
    f = partial(case.f, fill=255) if dtype == torch.uint8 and name.endswith("filled") else case.f
    found = f(key, x)
    assert found.dtype == dtype
    if dtype == torch.uint8:
        scaled = case.f(key, x.double() / 255) * 255
        assert (found.double() - scaled).abs().max() <= 0.5 + 1e-3
    else:
        wide = case.f(key, x.double())
        # each's function draws in the dtype of the image, so that its draw is another one
        if name != "each":
            torch.testing.assert_close(found.double(), wide, rtol=torch.finfo(dtype).eps, atol=1e-6)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_traced_is_eager(name, dtype):
    case = CASES[name]
    if name == "each" and dtype == torch.uint8:
        pytest.skip("the function of this case is one of floating images")
    compiled = jit(case.f, backend="aot_eager")
    for seed in range(3):
        x = images(seed, 4, case.channels, dtype=dtype)
        close(case, compiled(random.key(seed), x), case.f(random.key(seed), x))
    assert compiled.compiles == 1


@pytest.mark.slow
@every
def test_compiled_is_eager(name):
    case = CASES[name]
    x, key = images(0, 4, case.channels), random.key(5)
    close(case, jit(case.f)(key, x), case.f(key, x))


@every
def test_vmap_over_batches_is_a_loop(name):
    case = CASES[name]
    x = torch.stack([images(i, 4, case.channels) for i in range(3)])
    keys = random.split(random.key(7), 3)
    looped = torch.stack([case.f(k, batch) for k, batch in zip(keys, x, strict=True)])
    close(case, vmap(case.f)(keys, x), looped)
    close(case, vmap(case.f, in_dims=(0, None))(keys, x[0]), torch.stack([case.f(k, x[0]) for k in keys]))
    close(case, vmap(case.f, in_dims=(None, 0))(keys[0], x), torch.stack([case.f(keys[0], batch) for batch in x]))


@every
def test_gradients_are_those_of_differences(name):
    case, key = CASES[name], random.key(11)
    # Off the ends of 0..1, where what is clamped has a kink.
    x = (0.1 + 0.8 * images(2, 2, case.channels, dtype=torch.float64)).requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert gradcheck(lambda x: case.f(key, x), (x,), fast_mode=True, check_forward_ad=True)
        assert gradgradcheck(lambda x: case.f(key, x), (x,), fast_mode=True)
    slope = grad(lambda x: case.f(key, x).square().sum())(x.detach())
    assert slope.abs().sum() > 0


@every
def test_arguments_and_the_global_generator_stay(name):
    case, key = CASES[name], random.key(13)
    x = images(3, 4, case.channels)
    before, state = x.clone(), torch.get_rng_state()
    first = case.f(key, x)
    first_copy = first.clone()
    assert torch.equal(x, before)
    assert torch.equal(key, random.key(13))
    assert torch.equal(state, torch.get_rng_state())
    first.zero_()  # what is returned shares no memory with what was given
    assert torch.equal(x, before)
    torch.testing.assert_close(case.f(key, x), first_copy, rtol=0, atol=0)


@every
def test_an_empty_batch_and_other_layouts(name):
    case, key = CASES[name], random.key(17)
    x = images(4, 4, case.channels)
    assert case.f(key, x[:0]).shape == (0, *case.f(key, x).shape[1:])
    for other in (x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT, x.repeat(2, 1, 1, 1)[::2]):
        close(case, case.f(key, other), case.f(key, other.contiguous()))


def test_threads_do_not_meet():
    expected = {name: case.f(random.key(19), images(5, 8, case.channels)) for name, case in CASES.items()}
    wrong = []

    def work(name):
        case = CASES[name]
        for _ in range(20):
            if not torch.equal(case.f(random.key(19), images(5, 8, case.channels)), expected[name]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in CASES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@every
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(3, 8, 9), ValueError, r"\(N, C, H, W\), and got \(3, 8, 9\)\. For one image write images\[None\]"),
        (torch.ones(8, 9), ValueError, r"\(N, C, H, W\), and got \(8, 9\)\.$"),
        (torch.ones(2, 3, 8, 9, dtype=torch.int64), TypeError, r"torch\.int64\. Write images\.to\(torch\.uint8\)"),
        (torch.ones(2, 3, 8, 9, dtype=torch.bool), TypeError, r"torch\.bool"),
        ([[1.0]], TypeError, r"got list\. For a PIL image"),
    ],
    ids=["3d", "2d", "int64", "bool", "list"],
)
def test_what_are_no_images(name, x, error, message):
    with pytest.raises(error, match=message):
        CASES[name].f(random.key(0), x)


@every
def test_what_is_no_key(name):
    x = images(0, 3, CASES[name].channels)
    with pytest.raises(ValueError, match=r"got 2 keys for 3 images.*random\.split\(key, 3\)"):
        CASES[name].f(random.split(random.key(0)), x)
    with pytest.raises(TypeError, match=r"needs a key.*got None"):
        CASES[name].f(None, x)
    with pytest.raises(TypeError, match=r"write random\.key\(7\)"):
        CASES[name].f(7, x)
    with pytest.raises(TypeError, match=r"torch\.int64"):
        CASES[name].f(torch.zeros(3, 2, dtype=torch.int64), x)


def test_every_augmentation_is_here():
    others = {"Augmentation", "mixup", "cutmix", "normalize"}  # a type; and other signatures
    assert {name.split("-")[0] for name in CASES} == set(augment.__all__) - others


@pytest.mark.parametrize("name", ["resized_crop", "rotate"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_places_are_exact_whatever_the_default_dtype(name, dtype):
    x = random.uniform(random.key(5), (2, 1, 300, 280))
    size = {"resized_crop": {"size": 270}, "rotate": {"degrees": 40.0}}[name]
    expected = getattr(augment, name)(random.key(6), x, **size)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = getattr(augment, name)(random.key(6), x, **size)
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_widest_dtype_of_a_device():
    assert exact(torch.device("cpu")) == exact(torch.device("cuda")) == torch.float64
    assert exact(torch.device("mps")) == torch.float32

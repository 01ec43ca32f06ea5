"""Picture folders: torchvision's ImageFolder as a reference, and every broken file by its name."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from funcnet import data, random
from funcnet.data import DataError
from funcnet.data.images import read_picture

CLASSES = ("apple", "bread", "cup")


def picture(i, height=12, width=10):
    return Image.fromarray(random.randint(random.key(i), (height, width, 3), 0, 256).to(torch.uint8).numpy())


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(CLASSES):
        (tmp_path / name / "more").mkdir(parents=True)
        picture(3 * i).save(tmp_path / name / "b.png")
        picture(3 * i + 1).save(tmp_path / name / "a.jpg")
        picture(3 * i + 2).save(tmp_path / name / "more" / "C.PNG")
        (tmp_path / name / ".hidden.png").write_text("no picture")
        (tmp_path / name / "notes.txt").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_torchvision_finds_the_same(folder):
    found = data.read_images(folder)
    (folder / ".cache").rmdir()
    for name in CLASSES:
        (folder / name / ".hidden.png").unlink()
    reference = ImageFolder(str(folder))
    assert list(found.classes) == reference.classes
    assert found.label.tolist() == reference.targets
    assert torch.equal(found.x, torch.stack([pil_to_tensor(image) for image, _ in reference]))
    assert not found.skipped


@pytest.mark.parametrize("threads", [1, 4])
def test_resizing_is_that_of_pillow_whatever_the_threads(folder, threads):
    found = data.read_images(folder, (6, 8), threads=threads)
    assert found.x.shape == (9, 3, 6, 8)
    resized = picture(0).resize((8, 6), Image.Resampling.BILINEAR)
    assert torch.equal(found.x[1], pil_to_tensor(resized))
    assert data.read_images(folder, 5).x.shape == (9, 3, 5, 5)


def test_large_photographs_are_close_to_the_plain_way(tmp_path):
    (tmp_path / "a").mkdir()
    smooth = random.uniform(random.key(0), (1, 3, 8, 8))
    smooth = torch.nn.functional.interpolate(smooth, (256, 192), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)
    image = Image.fromarray((255 * smooth).to(torch.uint8).numpy())
    image.save(tmp_path / "a" / "1.jpg", quality=95)
    found = data.read_images(tmp_path, (32, 24)).x[0]
    with Image.open(tmp_path / "a" / "1.jpg") as opened:
        plain = pil_to_tensor(opened.resize((24, 32), Image.Resampling.BILINEAR))
    assert (found.float() - plain.float()).abs().mean() < 1  # of 255: JPEG is decoded at half its size


def test_every_kind_of_pixel_becomes_rgb(tmp_path):
    (tmp_path / "a").mkdir()
    grey = random.randint(random.key(0), (5, 4), 0, 256).to(torch.uint8).numpy()
    Image.fromarray(grey).save(tmp_path / "a" / "1.png")
    Image.fromarray(grey.astype(np.uint16) * 256 + 7).save(tmp_path / "a" / "2.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "a" / "3.png", transparency=b"\x00\x80")
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "a" / "4.png")
    found = data.read_images(tmp_path).x
    for i in range(4):
        assert torch.equal(found[i], torch.from_numpy(grey).expand(3, 5, 4))


@pytest.mark.parametrize("kind", ["cut", "empty", "text"])
def test_broken_pictures_are_named_or_skipped(folder, kind):
    path = folder / "bread" / "b.png"
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no picture"}[kind])
    with pytest.raises(DataError, match=r"bread/b\.png cannot be used \(.+: .*mend or remove it.*skip_bad=True"):
        data.read_images(folder)
    found = data.read_images(folder, skip_bad=True)
    assert list(found.skipped) == [str(path)]
    assert found.label.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert len(found.x) == 8


def test_another_size_is_named_or_skipped(folder):
    picture(20, 3, 4).save(folder / "cup" / "b.png")
    with pytest.raises(DataError, match=r"cup/b\.png cannot be used \(it is \(3, 4\) .* are \(12, 10\)\): give a size"):
        data.read_images(folder)
    assert list(data.read_images(folder, skip_bad=True).skipped) == [str(folder / "cup" / "b.png")]


def test_folders_that_hold_no_classes_are_explained(folder, tmp_path_factory):
    for path in (folder / "cup").rglob("*.*"):
        path.unlink()
    with pytest.raises(DataError, match=r"cup has no pictures .*remove this folder, a class"):
        data.read_images(folder)
    (folder / "cup" / "1.png").write_text("no picture")
    with pytest.raises(DataError, match=r"cup has no picture that can be used: 1 of 7"):
        data.read_images(folder, skip_bad=True)
    with pytest.raises(DataError, match=r"other classes than apple, bread, dish: cup is new; dish is missing"):
        data.read_images(folder, classes=["apple", "bread", "dish"])
    with pytest.raises(DataError, match=r"has no folders: put the pictures of each class"):
        data.read_images(tmp_path_factory.mktemp("empty"))
    with pytest.raises(DataError, match=r"nowhere cannot be read: No such file"):
        data.read_images(folder / "nowhere")
    with pytest.raises(ValueError, match=r"size is \(0, 3\); .* must be positive"):
        data.read_images(folder, (0, 3))


def test_one_picture_is_that_of_its_folder(folder):
    whole = data.read_images(folder, (6, 5))
    assert torch.equal(read_picture(folder / "apple" / "a.jpg", (6, 5)), whole.x[0])
    (folder / "apple" / "a.jpg").write_text("no picture")
    for name in ("a.jpg", "nowhere.png"):
        with pytest.raises(DataError, match=rf"{name} cannot be used"):
            read_picture(folder / "apple" / name, (6, 5))


def test_hidden_folders_are_passed_over_and_links_are_followed(tmp_path):
    for name in ("cat/one", "cat/.trash", "store"):
        (tmp_path / "all" / name).mkdir(parents=True)
    picture(0).save(tmp_path / "all" / "cat" / "one" / "a.png")
    picture(1).save(tmp_path / "all" / "cat" / ".trash" / "b.png")
    (tmp_path / "all" / "store").rename(tmp_path / "store")
    picture(2).save(tmp_path / "store" / "c.png")
    (tmp_path / "all" / "cat" / "two").symlink_to(tmp_path / "store")
    (tmp_path / "all" / "cat" / "again").symlink_to(tmp_path / "all" / "cat")  # a circle
    (tmp_path / "store" / "back").symlink_to(tmp_path / "all")
    found = data.read_images(tmp_path / "all")
    assert torch.equal(found.x, torch.stack([pil_to_tensor(picture(0)), pil_to_tensor(picture(2))]))


@pytest.mark.parametrize("greatest", [65535, 1023])
def test_greymaps_of_sixteen_bits_keep_their_greys(tmp_path, greatest):
    grey = random.randint(random.key(7), (9, 5), 0, greatest + 1)
    (tmp_path / "a").mkdir()
    raw = grey.numpy().astype(">u2").tobytes()
    (tmp_path / "a" / "1.pgm").write_bytes(f"P5 5 9 {greatest}\n".encode() + raw)
    found = data.read_images(tmp_path).x[0].int()
    assert (found - (255 * grey / greatest)).abs().max() <= 1
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(("mode", "told"), [("I", "integers of 32 bits"), ("F", "floating numbers")])
def test_pixels_without_a_white_are_refused(tmp_path, mode, told):
    (tmp_path / "a").mkdir()
    pixels = random.uniform(random.key(1), (4, 4)).numpy()
    Image.fromarray((1000 * pixels).astype("int32") if mode == "I" else pixels).save(tmp_path / "a" / "1.tif")
    with pytest.raises(DataError, match=rf"1\.tif cannot be used \(ValueError: its pixels are {told}"):
        data.read_images(tmp_path)

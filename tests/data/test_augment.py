"Two views against a plain reference, one pixel at a time in float64, and against torchvision's own colour operations."

import dataclasses
import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from ssnas_colab.core.basics import UserError
from ssnas_colab.data import augment as views_module
from ssnas_colab.data.augment import (
    AUGMENTATIONS,
    AugmentationPolicy,
    augment,
    find_augmentation,
    normalise,
    to_float,
    two_views,
)

EARLIER = {  # the mean of each view's channels, as they were when the first runs were made
    "natural": [
        0.64245, 0.615033, 0.598102, 0.41792, 0.41792, 0.41792,
        0.598352, 0.586752, 0.523368, 0.429276, 0.444855, 0.560983,
    ],
    "medical": [
        0.623132, 0.623917, 0.601918, 0.394995, 0.420445, 0.413305,
        0.579364, 0.567563, 0.569162, 0.471665, 0.553095, 0.512674,
    ],
}  # fmt: skip
STILL = AugmentationPolicy("still", crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), jitter=0.0)  # changes nothing


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=6, channels=3, height=12, width=12, low=0.0, high=1.0):
    values = torch.rand(count, channels, height, width, generator=generator(9), dtype=torch.float64)
    return low + (high - low) * values


def mirrored(position, size):
    "A pixel position reflected at the image's edges (half a pixel outside the outermost centres)."
    position = (position + 0.5) % (2 * size)
    position = 2 * size - position if position > size else position
    return min(max(position - 0.5, 0), size - 1)


def read(image, x, y):
    "Bilinear value of image (C, H, W) at pixel position (x, y)."
    x, y = mirrored(x, image.shape[2]), mirrored(y, image.shape[1])
    left, top = int(x), int(y)
    right, bottom = min(left + 1, image.shape[2] - 1), min(top + 1, image.shape[1] - 1)
    fx, fy = x - left, y - top
    upper = image[:, top, left] * (1 - fx) + image[:, top, right] * fx
    lower = image[:, bottom, left] * (1 - fx) + image[:, bottom, right] * fx
    return upper * (1 - fy) + lower * fy


def reference_warp(image, policy, draws):
    "Crop, rotate about the crop's centre and flip one image in pixel units, by looping over the output's pixels."
    height, width = image.shape[1:]
    area = (policy.crop_scale[0] + (policy.crop_scale[1] - policy.crop_scale[0]) * draws[0]) * height * width
    lowest = max(policy.crop_ratio[0], area / height**2)  # any lower and the crop is taller than the image
    highest = min(policy.crop_ratio[1], width**2 / area)
    ratio = math.exp(math.log(lowest) + draws[1] * (math.log(highest) - math.log(lowest)))
    crop_width, crop_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
    centre_x = crop_width / 2 + draws[2] * (width - crop_width)
    centre_y = crop_height / 2 + draws[3] * (height - crop_height)
    angle = math.radians(policy.rotation) * (2 * draws[4] - 1)
    out = np.empty(image.shape)
    for row in range(height):
        for column in range(width):
            x = ((column + 0.5) / width - 0.5) * crop_width * (-1 if draws[5] < policy.flip else 1)
            y = ((row + 0.5) / height - 0.5) * crop_height
            x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
            out[:, row, column] = read(image, centre_x + x - 0.5, centre_y + y - 0.5)
    return out


@pytest.mark.parametrize("height, width", [(12, 12), (10, 12)])
@pytest.mark.parametrize(
    "policy",
    [AUGMENTATIONS["natural"], AUGMENTATIONS["medical"], AugmentationPolicy("turned", (0.9, 1.0), rotation=45)],
)
def test_geometry_equals_a_loop_over_pixels_with_the_same_draws(policy, height, width):
    policy = dataclasses.replace(policy, jitter=0, grey=0, solarise=(0, 0), noise=0, flip=0.5)
    images = pictures(4, 2, height, width)
    views = torch.cat(two_views(images, policy, generator(4)))
    draws = torch.rand(8, 14, generator=generator(4), dtype=torch.float64).numpy()
    for view, image, row in zip(views, torch.cat([images, images]), draws, strict=True):
        np.testing.assert_allclose(view, reference_warp(image.numpy(), policy, row), atol=1e-9)


def test_colour_equals_torchvision_one_after_the_other():
    policy = dataclasses.replace(STILL, jitter=0.7, brightness=0.2, contrast=0.3, saturation=0.4, grey=0.3)
    images = pictures(12, low=0.4, high=0.6)  # nothing is clipped on the way, where the two differ on purpose
    views = torch.cat(two_views(images, policy, generator(2)))
    draws = torch.rand(24, 14, generator=generator(2), dtype=torch.float64)
    assert 0 < (draws[:, 6] < 0.7).sum() < 24 and 0 < (draws[:, 11] < 0.3).sum() < 24
    for view, image, row in zip(views, torch.cat([images, images]), draws, strict=True):
        if row[6] < 0.7:
            image = TF.adjust_brightness(image, (1 + 0.2 * (2 * row[7] - 1)).item())
            image = TF.adjust_contrast(image, (1 + 0.3 * (2 * row[8] - 1)).item())
            image = TF.adjust_saturation(image, (1 + 0.4 * (2 * row[9] - 1)).item())
        if row[11] < 0.3:
            image = TF.rgb_to_grayscale(image, 3)
        torch.testing.assert_close(view, image, rtol=0, atol=2e-4)  # torchvision's grey weights sum to 0.9999


def test_strong_jitter_is_clipped_to_the_range():
    bright = dataclasses.replace(STILL, jitter=1.0, brightness=0.9, contrast=0.9)
    views = torch.cat(two_views(pictures(), bright, generator()))
    assert views.min() == 0 and views.max() == 1


def test_hue_keeps_grey_pixels_and_luma_and_turns_as_far_as_drawn():
    policy = dataclasses.replace(STILL, jitter=1.0, brightness=0, contrast=0, hue=0.5)
    grey = pictures(channels=1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(two_views(grey, policy, generator())[0], grey, rtol=0, atol=2e-4)
    images = pictures(low=0.45, high=0.55)
    turned = two_views(images, policy, generator(1))[0]
    luma = torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)
    torch.testing.assert_close((luma * turned).sum(1), (luma * images).sum(1), rtol=0, atol=1e-9)
    turns = 0.5 * (2 * torch.rand(12, 14, generator=generator(1), dtype=torch.float64)[:6, 10] - 1)
    chroma = torch.tensor([[0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=torch.float64)
    before, after = (torch.einsum("ij,njhw->inhw", chroma, v) for v in (images, turned))
    angle = torch.atan2(after[1], after[0]) - torch.atan2(before[1], before[0])
    difference = angle - 2 * math.pi * turns.view(-1, 1, 1)
    assert torch.cos(difference).min() > 1 - 1e-9


def test_solarise_is_for_the_second_view_and_as_torchvision_defines_it():
    images = pictures(200)
    first, second = two_views(images, dataclasses.replace(STILL, solarise=(0.0, 0.2)), generator())
    torch.testing.assert_close(first, images, rtol=0, atol=1e-9)
    turned = (second - images).abs().flatten(1).amax(1) > 1e-6
    assert 20 <= turned.sum() <= 60  # 200 x 0.2, three and a half standard deviations each way
    torch.testing.assert_close(second[turned], TF.solarize(images[turned], 0.5), rtol=0, atol=1e-9)


def test_same_generator_same_bits_and_every_image_its_own():
    images = (255 * pictures(1)).to(torch.uint8).repeat(20, 1, 1, 1)
    for policy in AUGMENTATIONS:
        views, again = (torch.cat(two_views(images, policy, generator(3))) for _ in range(2))
        assert torch.equal(views, again) and views.dtype == torch.float32
        assert len({view.numpy().tobytes() for view in views}) == 40
        assert not torch.equal(views, torch.cat(two_views(images, policy, generator(4))))
        assert views.min() >= 0 and views.max() <= 1


def test_views_ignore_the_global_generator_and_leave_it_and_the_images_alone():
    images, state = pictures(), torch.get_rng_state()
    kept = images.clone()
    first = two_views(images, "medical", generator())[0]
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, kept)
    torch.manual_seed(5)
    assert torch.equal(two_views(images, "medical", generator())[0], first)


def test_a_chest_is_never_mirrored_and_a_photograph_half_the_time():
    ramp = torch.linspace(0.1, 0.9, 16, dtype=torch.float64).expand(300, 1, 16, 16)
    for policy, low, high in (("medical", 0, 0), ("natural", 240, 360)):
        views = torch.cat(two_views(ramp, dataclasses.replace(AUGMENTATIONS[policy], solarise=(0, 0)), generator()))
        mirrored_count = (views[..., 12:].mean((1, 2, 3)) < views[..., :4].mean((1, 2, 3))).sum()
        assert low <= mirrored_count <= high
        moved = augment(ramp, policy, generator())
        mirrored_count = (moved[..., -1].mean((1, 2)) < moved[..., 0].mean((1, 2))).sum()
        assert low / 2 <= mirrored_count <= high / 2


def test_chest_and_microscopy():
    ramp = torch.linspace(0.1, 0.9, 16, dtype=torch.float64).expand(300, 1, 16, 16)
    for images in (ramp, ramp.mT):  # brighter to the right, brighter downwards
        chest = torch.cat(two_views(images, "chest", generator()))
        moved = augment(images, "chest", generator())
        turned = augment(images, "microscopy", generator())
        across = -1 if images is ramp else -2
        for views, low, high in ((chest, 0, 0), (moved, 0, 0), (turned, 100, 200)):
            first, last = views.select(across, 0).mean((1, 2)), views.select(across, 15).mean((1, 2))
            assert low <= (last < first).sum() <= high
        slides = torch.cat(two_views(images, "microscopy", generator()))
        first, last = slides.select(across, 2).mean((1, 2)), slides.select(across, 13).mean((1, 2))
        assert 240 <= (last < first).sum() <= 360  # no side is up
    assert find_augmentation("grey medical") is find_augmentation("Grey-Medical") is AUGMENTATIONS["medical"]
    assert find_augmentation("grey_medical") is AUGMENTATIONS["medical"] and AUGMENTATIONS["microscopy"].grey == 0


def test_blocks_change_nothing_but_the_last_bit(monkeypatch):
    images = (255 * pictures(37, height=20, width=20)).to(torch.uint8)
    for policy in AUGMENTATIONS:
        whole = torch.cat(two_views(images, policy, generator(3)))
        for values in (1, 1200 * 5):
            monkeypatch.setattr(views_module, "_CPU_BLOCK", values)
            found = torch.cat(two_views(images, policy, generator(3)))
            torch.testing.assert_close(found, whole, rtol=0, atol=1.2e-7)  # of 0 to 1; mostly it is 0
        monkeypatch.undo()
    empty = two_views(images[:0], "natural", generator())
    assert empty[0].shape == empty[1].shape == (0, 3, 20, 20)


def test_natural_and_medical_views_are_what_they_were():
    "Runs made before continue with the same views."
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.int64).mul(97).remainder(256).view(2, 3, 8, 8).to(torch.uint8)
    for policy, expected in EARLIER.items():
        found = torch.cat([v.mean((2, 3)) for v in two_views(x, policy, generator(5))]).flatten()
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_one_channel_needs_no_colour():
    image = pictures(channels=1)
    policy = dataclasses.replace(AUGMENTATIONS["natural"], brightness=0, contrast=0, solarise=(0, 0))
    plain = dataclasses.replace(policy, jitter=0, grey=0)
    expected = two_views(image, plain, generator())
    torch.testing.assert_close(two_views(image, policy, generator()), expected, rtol=0, atol=1e-12)


def test_mixed_precision_outside_changes_nothing_inside():
    images = pictures(4, height=32, width=32).float()
    expected = two_views(images, "natural", generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = two_views(images, "natural", generator())
    assert torch.equal(inside[0], expected[0]) and torch.equal(inside[1], expected[1])


def test_augment_moves_whole_pixels_by_at_most_an_eighth():
    codes = torch.arange(16 * 16).view(1, 1, 16, 16).repeat(400, 1, 1, 1)  # each pixel its own number
    moved = augment(codes, "medical", generator())
    assert moved.dtype == codes.dtype and moved.shape == codes.shape
    rows, columns = moved[:, 0, 8, 8] // 16 - 8, moved[:, 0, 8, 8] % 16 - 8
    assert set(rows.tolist()) == set(columns.tolist()) == {-2, -1, 0, 1, 2}
    for image, down, right in zip(moved[:50, 0], rows, columns, strict=False):
        padded = np.pad(codes[0, 0].numpy(), 2, mode="reflect")
        np.testing.assert_array_equal(image, padded[2 + down : 18 + down, 2 + right : 18 + right])
    assert torch.equal(moved, augment(codes, "medical", generator()))
    one = torch.ones(2, 1, 1, 1)
    assert torch.equal(augment(one, "natural", generator()), one)  # too small to move


def test_floats_and_normalisation():
    bytes_ = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    np.testing.assert_allclose(to_float(bytes_).flatten(), [0, 128 / 255, 1], rtol=1e-6)
    expected = [-1.0, (128 / 255 - 0.5) / 0.25, 0.0]
    np.testing.assert_allclose(normalise(bytes_, (0.5, 0.5, 1.0), (0.5, 0.25, 0.0)).flatten(), expected, atol=1e-6)
    with pytest.raises(ValueError, match="int64"):
        to_float(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="2 means"):
        normalise(bytes_, (0.5, 0.5), (1.0, 1.0))


def test_policies_by_name():
    assert find_augmentation("natural") is AUGMENTATIONS["natural"] and find_augmentation(STILL) is STILL
    with pytest.raises(dataclasses.FrozenInstanceError):
        AUGMENTATIONS["natural"].flip = 1.0
    with pytest.raises(UserError, match="did you mean 'medical'"):
        two_views(pictures(), "medicel", generator())
    with pytest.raises(ValueError, match="batch, channels"):
        two_views(pictures()[0], "natural", generator())
    with pytest.raises(ValueError, match="generator on cpu"):
        two_views(pictures().to("meta"), "natural", generator())

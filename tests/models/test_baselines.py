"The controls: ResNet-18, its narrow twin, networks of equal work, random genotypes."

import math
from collections import Counter

import pytest
import torch

from ssnas_colab.config import SCALED_NAMES
from ssnas_colab.core.basics import UserError
from ssnas_colab.models.baselines import (
    SCALED,
    MobileNet,
    ResNet,
    ShuffleNet,
    narrow_resnet,
    random_genotype,
    resnet18,
    within_macs,
)
from ssnas_colab.models.genotype import GENOTYPES, PRIMITIVES, Edge, Genotype
from ssnas_colab.models.network import Network, count_macs, count_parameters


def resnet_parameters(width, num_classes, in_channels):
    "Parameters of a ResNet-18 of that width, added up by hand."
    total = in_channels * width * 9 + 2 * width + 4 * (9 * width**2 + 2 * width)
    for c in (width, 2 * width, 4 * width):
        d = 2 * c
        total += 9 * c * d + 3 * 9 * d * d + c * d + 5 * 2 * d
    return total + 8 * width * num_classes + num_classes


def test_resnet18_size():
    with torch.device("meta"):
        model = resnet18(10)
    assert count_parameters(model) == resnet_parameters(64, 10, 3) == 11_173_962
    # by hand: 4 convolutions of 64 channels at 32x32; later stages keep the product c * c * h * w, the first layer of
    # a stage reads half the channels, and the 1x1 shortcut does a ninth of that
    full = 64 * 64 * 9 * 32 * 32
    by_hand = 3 * 64 * 9 * 1024 + 4 * full + 3 * (3 * full + full // 2 + full // 18) + 5120
    assert count_macs(model) == by_hand


@pytest.mark.parametrize("classes, channels", [(10, 3), (2, 1), (100, 3), (1000, 3)])
@pytest.mark.parametrize("limit", [413_850, 50_000])
def test_narrow_resnet_is_the_widest_that_fits(classes, channels, limit):
    width = max(w for w in range(1, 64) if resnet_parameters(w, classes, channels) <= limit)
    model = narrow_resnet(classes, channels, limit)
    assert count_parameters(model) == resnet_parameters(width, classes, channels)
    assert next(model.parameters()).device.type == "cpu"


def test_narrow_resnet_says_when_nothing_fits():
    with pytest.raises(UserError, match="max_parameters=1,000"):
        narrow_resnet(10, max_parameters=1000)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (9, 5), (1, 1)])
def test_images_of_any_size(size):
    model = ResNet((1, 1, 1, 1), 4, 3, in_channels=1)
    x = torch.randn(4, 1, *size)
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.features(x).shape == (4, model.feature_width) == (4, 32)
    torch.testing.assert_close(model.eval()(x), model.classifier(model.features(x)))


def test_resnet_block_against_its_definition():
    "One block with stride: relu(conv(relu(conv(x))) + conv1x1(x)), batch norms in evaluation mode being the identity."
    torch.manual_seed(0)
    block = ResNet((1, 1), 4, 2).double().eval().blocks[1]
    first, second = block.body[0].weight, block.body[3].weight
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    inner = torch.relu(torch.conv2d(x, first, stride=2, padding=1) / (1 + 1e-5) ** 0.5)
    outer = torch.conv2d(inner, second, padding=1) / (1 + 1e-5) ** 0.5
    around = torch.conv2d(x, block.shortcut[0].weight, stride=2) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), torch.relu(outer + around))


def test_shufflenet_is_the_papers_at_its_own_width():
    "Ma 2018, table 5: the stem apart (stride and pooling), width 116 is the network of torchvision, to the bit."
    from torchvision.models import shufflenet_v2_x1_0

    theirs, ours = shufflenet_v2_x1_0(num_classes=10).eval(), ShuffleNet(10, stem_stride=4).eval()
    names = {"stem": "conv1", "classifier": "fc", "blocks.0": "stage2", "blocks.1": "stage3", "blocks.2": "stage4"}
    names |= {"blocks.3": "conv5"}
    weights = theirs.state_dict()
    for own, other in names.items():
        ours.get_submodule(own).load_state_dict(
            {key.removeprefix(f"{other}."): value for key, value in weights.items() if key.startswith(f"{other}.")}
        )
    assert count_parameters(ours) == count_parameters(theirs) == 1_263_854
    x = torch.randn(2, 3, 64, 64)
    assert ShuffleNet(10).stem(x).shape[-1] == 64  # the form for small images
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("make", [resnet18, narrow_resnet, MobileNet, ShuffleNet])
def test_a_stem_that_steps_costs_work_and_no_parameter(make):
    nets = [make(3, 1, stem_stride=stride) for stride in (1, 2, 4)]
    macs = [count_macs(net, (1, 128, 128)) for net in nets]
    assert len(set(map(count_parameters, nets))) == 1 and 3.5 < macs[0] / macs[1] < 4.5
    assert macs[1] == macs[2] if make is MobileNet else 3.5 < macs[1] / macs[2] < 4.5
    assert str(nets[0]) == str(make(3, 1))


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (9, 5), (1, 1)])
@pytest.mark.parametrize(
    "build", [lambda: ShuffleNet(3, 1, 8), lambda: MobileNet(3, 1, 0.2)], ids=["shuffle", "mobile"]
)
def test_scaled_networks_take_images_of_any_size(build, size):
    model = build()
    x = torch.randn(4, 1, *size)
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    assert model.features(x).shape == (4, model.feature_width) == (4, model.classifier.in_features)
    torch.testing.assert_close(model(x), model.classifier(model.features(x)))


WIDER = {
    "resnet": lambda net, *sizes: ResNet((2, 2, 2, 2), net.width + 1, *sizes),
    "mobilenet_v3": lambda net, *sizes: MobileNet(*sizes, net.width + 0.01),
    "shufflenet_v2": lambda net, *sizes: ShuffleNet(*sizes, net.width + 2),
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("budget, size, sizes", [(300_000, (8, 8), (10, 1)), (6_000_000, (16, 12), (4, 3))])
def test_networks_of_equal_work_are_the_widest_that_fit(name, budget, size, sizes):
    model = within_macs(name, *sizes, max_macs=budget, input_size=size)
    shape = (sizes[1], *size)
    assert count_macs(model, shape) <= budget < count_macs(WIDER[name](model, *sizes), shape)
    assert next(model.parameters()).device.type == "cpu" and model.classifier.out_features == sizes[0]
    if size == (8, 8):  # exactly the least: its own MACs fit, one fewer does not
        own = count_macs(model, shape)
        assert within_macs(name, *sizes, max_macs=own, input_size=size).width == model.width
        assert within_macs(name, *sizes, max_macs=own - 1, input_size=size).width < model.width
    else:
        stepping = within_macs(name, *sizes, max_macs=budget, input_size=size, stem_stride=2)
        assert stepping.width > model.width and count_macs(stepping, shape) <= budget


def test_equal_work_says_when_nothing_fits():
    assert tuple(SCALED) == SCALED_NAMES
    for name in SCALED:
        with pytest.raises(UserError, match=r"narrowest .* MACs for 8 x 8 pixels, more than the 500 .*equal_macs"):
            within_macs(name, 10, 1, max_macs=500, input_size=(8, 8))
    with pytest.raises(UserError, match="no hand-made network 'resnets'.*resnet"):
        within_macs("resnets", 10, max_macs=10**6, input_size=(8, 8))
    for most in (math.nan, math.inf, -1):
        with pytest.raises(UserError, match=f"budget of macs is {most}"):
            within_macs("resnet", 10, max_macs=most, input_size=(8, 8))
        with pytest.raises(UserError, match=f"budget of parameters is {most}"):
            narrow_resnet(10, max_parameters=most)


def test_random_genotype_is_deterministic():
    assert random_genotype(7) == random_genotype(7) != random_genotype(8)
    assert random_genotype(2**62 + 1) == random_genotype(2**62 + 1)
    like = GENOTYPES["FairDARTS_b"]
    assert random_genotype(7, like=like) == random_genotype(7, like=like) != random_genotype(7)


def test_random_genotype_is_uniform():
    drawn = [random_genotype(seed) for seed in range(1500)]
    for kind in ("normal", "reduce"):
        cells = [getattr(genotype, kind) for genotype in drawn]
        assert all(Counter(edge.target for edge in cell) == {2: 2, 3: 2, 4: 2, 5: 2} for cell in cells)
        assert all(len({(edge.source, edge.target) for edge in cell}) == 8 for cell in cells)
        operations = Counter(edge.op for cell in cells for edge in cell)
        for name in PRIMITIVES:
            assert abs(operations[name] / 12_000 - 1 / 7) < 0.014
        pairs = Counter(tuple(sorted(edge.source for edge in cell if edge.target == 4)) for cell in cells)
        assert len(pairs) == 6 and all(abs(count / 1500 - 1 / 6) < 0.05 for count in pairs.values())
        # the operation does not depend on the source
        first = Counter(edge.op for cell in cells for edge in cell if edge.source == 0)
        assert all(abs(first[name] / sum(first.values()) - 1 / 7) < 0.025 for name in PRIMITIVES)


def test_other_numbers_of_nodes():
    genotype = random_genotype(0, nodes=3)
    assert len(genotype.normal) == len(genotype.reduce) == 6 and genotype.normal_concat == (2, 3, 4)


@pytest.mark.parametrize("name", GENOTYPES)
def test_like_keeps_the_number_of_edges_of_each_node(name):
    like = GENOTYPES[name]
    for seed in range(40):
        drawn = random_genotype(seed, like=like)
        for kind in ("normal", "reduce"):
            (theirs, concat), (ours, drawn_concat) = like.used(kind), drawn.used(kind)
            assert Counter(e.target for e in ours) == Counter(e.target for e in theirs) and drawn_concat == concat
            assert len(getattr(drawn, kind)) == len(ours)  # no edge is lost
    assert count_parameters(Network.within(random_genotype(0, like=like), 10)) <= 413_850


def test_like_with_several_operations_on_one_edge():
    many = [Edge(op, 0, 2) for op in PRIMITIVES[:4]]
    like = Genotype(tuple(many), (Edge("skip_connect", 1, 3),), (2,), (3,))
    for seed in range(20):
        drawn = random_genotype(seed, like=like)
        assert len(set(drawn.normal)) == 4 and {edge.target for edge in drawn.normal} == {2}
        assert len(drawn.reduce) == 1 and drawn.reduce[0].source in (0, 1) and drawn.reduce_concat == (3,)

"Scores against their papers' definitions in float64, and that whoever is scored does not notice."

import itertools
import math
import sys
import types
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from refusal import refused
from torch import nn
from torch.nn.utils import prune

import ssnas_colab
from ssnas_colab.core.basics import UserError
from ssnas_colab.data.augment import pixel_statistics
from ssnas_colab.models.baselines import ResNet, random_genotype
from ssnas_colab.models.network import Network, count_macs, count_parameters
from ssnas_colab.nas import scores
from ssnas_colab.nas.scores import SCORES, HeldOut, Score, network_score, network_scores

TRAINED = ("barlow_twins", "simclr", "vicreg", "rank", "retrieval")


def pictures(count=80, channels=3, height=8, width=8, seed=0):
    "Images of which two views have something in common: smooth, each in its own colours."
    coarse = torch.rand(count, channels, 3, 3, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True) * 255).byte()


class Small(nn.Module):
    "A stem of two layers, a list of blocks, something that gives no map; everything that a module may change."

    def __init__(self, channels=3, activation=F.relu):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.blocks = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2)])
        self.dropout, self.end = nn.Dropout(0.3), nn.Linear(8, 5)
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.activation, self.feature_width, self.fail_at, self.calls = activation, 5, None, 0

    def features(self, x):
        self.calls += 1
        if self.fail_at == self.calls:
            raise ArithmeticError("in the middle")
        x = self.activation(self.stem(x))
        for block in self.blocks:
            x = self.activation(block(x))
        np.random.rand(), torch.rand(1)
        return self.end(self.dropout(x.mean((2, 3))))

    forward = features


def small(seed=0, **options):
    torch.manual_seed(seed)
    return Small(**options)


def seen_by(network, images, steps=0, objective="barlow_twins", look=lambda held: held, **options):
    "What a score sees: `look` of the `HeldOut`, float64 where the network is."
    found = []

    def keep(held):
        found.append(look(held))
        return 0.0

    network_score(network, images, score=Score(keep, objective), steps=steps, **options)
    return found[0]


# --- what the numbers are


def embeddings(held):
    return tuple(z.clone().double().numpy() for z in held.embeddings)


@pytest.mark.parametrize("steps", [0, 3])
def test_barlow_twins_is_equation_1(steps):
    network, images = small().double(), pictures()
    z1, z2 = seen_by(network, images, steps, look=embeddings)
    z1, z2 = ((z - z.mean(0)) / z.std(0) for z in (z1, z2))
    c = z1.T @ z2 / len(z1)
    loss = sum((1 - c[i, i]) ** 2 for i in range(len(c))) + 0.0051 * ((c**2).sum() - (np.diag(c) ** 2).sum())
    assert network_score(network, images, steps=steps) == pytest.approx(-loss / 512, rel=1e-6)


@pytest.mark.parametrize("steps", [0, 3])
def test_simclr_is_equation_1(steps):
    network, images = small().double(), pictures()
    z = np.concatenate(seen_by(network, images, steps, "simclr", embeddings))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    half, total = len(z) // 2, 0.0
    for i in range(len(z)):
        others = [math.exp(z[i] @ z[k] / 0.5) for k in range(len(z)) if k != i]
        total -= math.log(math.exp(z[i] @ z[(i + half) % len(z)] / 0.5) / sum(others))
    assert network_score(network, images, score="simclr", steps=steps) == pytest.approx(-total / len(z), rel=1e-9)


@pytest.mark.parametrize("steps", [0, 3])
def test_vicreg_is_equation_6(steps):
    network, images = small().double(), pictures()
    pair = seen_by(network, images, steps, "vicreg", embeddings)
    loss = 25 * ((pair[0] - pair[1]) ** 2).mean()
    for z in pair:
        c = np.cov(z.T)
        loss += 25 * np.maximum(0, 1 - np.sqrt(np.diag(c) + 1e-4)).mean()
        loss += (c**2).sum() / len(c) - (np.diag(c) ** 2).sum() / len(c)
    assert network_score(network, images, score="vicreg", steps=steps) == pytest.approx(-loss, rel=1e-9)


def test_rank_is_rankme():
    network, images = small().double(), pictures()
    features = seen_by(network, images, 3, look=lambda held: held.features.numpy().copy())
    assert features.shape == (40, 5)
    values = np.sqrt(np.linalg.eigvalsh(features.T @ features))
    share = values / values.sum() + 1e-7
    expected = math.exp(-(share * np.log(share)).sum())
    assert network_score(network, images, score="rank", steps=3) == pytest.approx(expected, rel=1e-6)


def test_rank_counts_directions():
    orthogonal = torch.linalg.qr(torch.randn(40, 7, generator=torch.Generator().manual_seed(0)))[0]
    for count in (1, 3, 7):
        held = types.SimpleNamespace(features=orthogonal[:, :count] @ torch.eye(count, 9))
        assert scores.rank(held) == pytest.approx(count, rel=1e-4)
    assert scores.rank(types.SimpleNamespace(features=torch.full((4, 2), math.nan))) == -math.inf


def test_retrieval_is_the_share_found():
    network, images = small(), pictures(200)
    h1, h2 = seen_by(network, images, 3, look=lambda held: [h.double().numpy().copy() for h in held.view_features])
    assert len(h1) == 100
    found = 0
    for asked, among in ((h1, h2), (h2, h1)):
        for i, h in enumerate(asked):
            alike = [h @ other / np.linalg.norm(h) / np.linalg.norm(other) for other in among]
            found += max(range(len(alike)), key=alike.__getitem__) == i
    assert network_score(network, images, score="retrieval", steps=3) == pytest.approx(found / 200)
    assert 1 < found < 200  # more than by chance, and not all


def test_at_most_512_images_are_held_out():
    counts = [len(seen_by(small(), pictures(n), look=lambda held: held.images)) for n in (64, 1000, 1200)]
    assert counts == [32, 500, 512]


ACTIVATIONS = {
    "F.relu": F.relu, "nn.ReLU": nn.ReLU(), "in place": nn.ReLU(inplace=True), "torch.relu": torch.relu,
    "relu_": lambda x: x.relu_(), "clamp": lambda x: x.clamp(min=0), "clamp_": lambda x: x.clamp_(0),
    "clip": lambda x: x.clip(0, 6), "clamp_min": lambda x: torch.clamp_min(x, 0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "mask": lambda x: x * (x > 0), "where": lambda x: torch.where(x > 0, x, 0),
    "max": lambda x: torch.max(x, torch.zeros(())), "of zero": lambda x: torch.maximum(torch.zeros_like(x), x),
    "fmax": lambda x: torch.fmax(x, torch.zeros(())), "at least": lambda x: x * (x >= 0),
    "filled": lambda x: x.masked_fill(x < 0, 0), "at most": lambda x: torch.where(x <= 0, 0, x),
    "erf": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "relu6": F.relu6, "hardtanh": nn.Hardtanh(0, 6), "hardswish": F.hardswish, "nn.Hardswish": nn.Hardswish(),
    "silu": F.silu, "silu_": nn.SiLU(inplace=True), "gelu": F.gelu, "elu": F.elu, "selu": F.selu, "celu": F.celu,
    "leaky": F.leaky_relu, "prelu": nn.PReLU().double(), "rrelu": nn.RReLU().eval(), "mish": F.mish,
    "softplus": F.softplus,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid, "scripted": None,
}  # fmt: skip


def agreement(codes):
    "K of NASWOT, pair by pair: the number of units less the Hamming distance."
    return np.array([[codes.shape[1] - (a != b).sum() for b in codes] for a in codes], dtype=float)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_naswot_sees_activations_whatever_calls_them(name):
    network, images, codes = small().double(), pictures(64), []
    activation = ACTIVATIONS[name] or torch.jit.script(nn.ReLU())

    def watched(x):
        codes.append((x > 0).flatten(1).numpy())
        return activation(x.clone())  # in place or not: the caller's own is not asked again

    network.activation = lambda x: activation(x)
    found = network_score(network, images, score="naswot")
    network.activation, order = watched, np.random.default_rng(5).permutation(64)
    held = HeldOut(network, images[order])
    held.judging()
    with torch.no_grad():
        network.features(held.few)
    expected = np.linalg.slogdet(agreement(np.concatenate(codes, 1)))[1]
    assert math.isfinite(expected) and found == pytest.approx(expected, rel=1e-9)


def test_naswot_ignores_what_only_guards_a_division():
    network, images = small().double(), pictures(64)
    expected = network_score(network, images, score="naswot")
    network.activation = lambda x: F.relu(x / x.abs().clamp(min=1e-12).maximum(torch.ones(()))) * 2
    assert network_score(network, images, score="naswot") == pytest.approx(expected, abs=40)
    network.activation = lambda x: x.clamp(min=-1)
    assert network_score(network, images, score="naswot") == -math.inf


def test_naswot_takes_equal_images_once():
    network, images = small().double(), pictures(64)
    images[7] = images[8]
    once = torch.cat([images[:7], images[8:]])
    expected = scores.naswot(HeldOut(network, once, statistics=pixel_statistics(images.numpy())))
    assert network_score(network, images, score="naswot") == pytest.approx(expected, rel=1e-9)


class Units(nn.Module):
    "So many units, which do not see an image's last pixel."

    def __init__(self, units):
        super().__init__()
        self.layer, self.feature_width = nn.Linear(191, units), units

    def features(self, x):
        return F.relu(self.layer(x.flatten(1)[:, :191]))


def test_naswot_of_a_singular_matrix_is_the_worst_score():
    images = pictures(64)
    images[7] = images[8]
    images[7, 2, 7, 7] ^= 1
    torch.manual_seed(0)
    assert network_score(Units(1000), images, score="naswot") == -math.inf  # two images share all
    assert network_score(Units(16), pictures(64), score="naswot") == -math.inf  # the rank is 17 at most
    assert math.isfinite(network_score(Units(1000), pictures(64), score="naswot"))


def test_naswot_refuses_images_that_are_all_equal():
    torch.manual_seed(0)
    network, images = ResNet((1, 1, 1, 1), 2, in_channels=3), pictures(1).expand(70, -1, -1, -1)
    refused("naswot needs images that differ", act=lambda: network_score(network, images, score="naswot"))
    assert math.isfinite(network_score(network, images, score="expressivity"))


def entropy_of(maps):
    "Of the principal components of (B, C, H, W), by the singular values of the centred table of vectors."
    table = np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])
    variances = np.linalg.svd(table - table.mean(0), compute_uv=False) ** 2
    share = variances[variances > 0] / variances.sum()
    return -(share * np.log(share)).sum()


def test_expressivity_sums_over_the_outermost_parts():
    network, images = small().double(), pictures(64)
    found = network_score(network, images, score="expressivity")
    held = HeldOut(network, images)
    held.judging()
    with torch.no_grad():
        first = network.stem[0](held.few)
        second = network.stem[1](first)
        third = network.blocks[0](second.relu())
        fourth = network.blocks[1](third.relu())
    expected = sum(entropy_of(maps.numpy()) for maps in (first, second, third, fourth))
    assert found == pytest.approx(expected, rel=1e-9)


def test_expressivity_counts_a_part_at_each_call():
    network, images = small().double(), pictures(64)
    network.blocks = nn.ModuleList([network.blocks[0], network.blocks[0]])
    network.end = nn.Linear(6, 5).double()
    twice = network_score(network, images, score="expressivity")
    network.blocks = network.blocks[:1]
    assert twice > network_score(network, images, score="expressivity") + 0.1


class Part(nn.Module):
    "A box with layers inside, of which the last works in place on the result."

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.body(x) + x


def test_expressivity_looks_into_containers_and_wrappers_but_not_into_parts():
    torch.manual_seed(0)
    inner, outer = Small(), nn.Module()
    inner.blocks = nn.ModuleList([nn.Sequential(Part(), nn.ReLU(inplace=True)), Part()])
    inner.end = nn.Linear(6, 5)
    outer.net, outer.feature_width = inner, 5
    outer.features = lambda x: inner(x)  # a result that is no map, by a call of one module
    images = pictures(64)
    found = network_score(outer.double(), images, score="expressivity")
    held = HeldOut(outer, images)
    held.judging()
    with torch.no_grad():
        maps = [inner.stem[0](held.few)]
        maps.append(inner.stem[1](maps[-1]))
        maps.append(inner.blocks[0][0](maps[-1].relu()))
        maps.append(maps[-1].relu())
        maps.append(inner.blocks[1](maps[-1]))
    assert found == pytest.approx(sum(entropy_of(each.numpy()) for each in maps), rel=1e-9)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_expressivity_sees_a_scripted_part():
    network, images = small(), pictures(64)
    network.blocks = nn.ModuleList([Part()])
    network.end = nn.Linear(6, 5)
    expected = network_score(network, images, score="expressivity")
    network.blocks[0] = torch.jit.script(network.blocks[0])
    before = everything(network)
    assert network_score(network, images, score="expressivity") == pytest.approx(expected, rel=1e-6)
    assert same(before, everything(network))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 12, 9)])
def test_macs_and_parameters(shape):
    torch.manual_seed(0)
    network = Network(random_genotype(1), 10, in_channels=shape[0], width=4, depth=3)
    images = pictures(64, *shape)
    assert network_score(network, images, score="macs") == count_macs(network, shape)
    assert network_score(network, images, score="parameters") == count_parameters(network)


def test_macs_of_a_module_without_forward():
    class Bare(nn.Module):
        feature_width = 4

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1, bias=False)

        def features(self, x):
            return self.layer(x).mean((2, 3))

    assert network_score(Bare(), pictures(64), score="macs") == 4 * 3 * 64


def test_depth_is_the_longest_chain():
    images = pictures(64)
    assert network_score(ResNet((2, 2, 2, 2), 2), images, score="depth") == 17  # of the 18, one is the classifier
    assert network_score(ResNet((3, 1), 2), images, score="depth") == 9
    assert network_score(small(), images, score="depth") == 4
    assert network_score(small().requires_grad_(False), images, score="depth") == 4


# --- that nobody notices


def everything(network):
    "All that scoring could leave behind, as bytes and identities."
    state = {key: (value.clone(), value.data_ptr()) for key, value in network.state_dict().items()}
    held = [(id(p), p.data_ptr(), p.requires_grad, p.grad is None or p.grad.clone()) for p in network.parameters()]
    buffers = [(name, id(buffer)) for name, buffer in network.named_buffers()]
    modes = [module.training for module in network.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    return state, held, buffers, modes, hooks, torch.get_rng_state(), np.random.get_state()[1].copy()


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return all(map(same, a, b)) if isinstance(a, (list, tuple)) else a == b


def worn():
    "A network in an odd state: gradients, some modules in training, running statistics of its own."
    network = small()
    network(torch.randn(9, 3, 8, 8)).sum().backward()
    network.eval()
    network.stem.train()
    return network


@pytest.mark.parametrize("name", SCORES)
def test_the_network_is_left_as_it_was(name):
    network = worn()
    before = everything(network)
    first = network_score(network, pictures(), score=name, steps=2)
    assert same(before, everything(network))
    torch.rand(3), np.random.rand(3)
    network.train()
    assert network_score(network, pictures(), score=name, steps=2) == first  # whatever its mode and the generators
    assert isinstance(first, float)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)])
def test_a_weight_that_is_made_at_each_call_is_left_too(wrap):
    network = small()
    wrap(network.blocks[0])
    network(pictures().float())
    weight = network.blocks[0].weight
    before = weight.detach().clone()
    for name in SCORES:
        network_score(network, pictures(), score=name, steps=2)
        assert network.blocks[0].weight is weight and torch.equal(weight, before)


@pytest.mark.parametrize("fail_at", [2, 3, 7])
def test_also_after_an_exception(fail_at):
    network = worn()
    before = everything(network)
    network.calls, network.fail_at = 0, fail_at
    with pytest.raises(ArithmeticError, match="in the middle"):
        network_score(network, pictures(), steps=4)
    assert same(before, everything(network))


def test_scoring_does_train_within():
    network = worn()
    weight = seen_by(network, pictures(), 3, look=lambda held: held.network.end.weight.clone())
    assert not torch.equal(weight, network.end.weight)
    assert network_score(network, pictures(), steps=12) != network_score(network, pictures(), steps=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_scripted_module_and_a_buffer_that_is_put_anew():
    class Counting(Small):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def features(self, x):
            self.seen = self.seen + len(x)
            return super().features(x)

    torch.manual_seed(0)
    network = Counting()
    network.stem = torch.jit.script(network.stem)
    before = everything(network)
    assert math.isfinite(network_score(network, pictures(), steps=2)) and same(before, everything(network))


def test_without_gradients_and_in_inference_mode():
    network, images = small(), pictures()
    expected = network_score(network, images, steps=2)
    with torch.no_grad():
        assert network_score(network, images, steps=2) == expected
    with torch.inference_mode():
        assert network_score(network, images, steps=2) == expected
    network.requires_grad_(False)
    assert network_score(network, images, steps=2) == expected


def test_numpy_or_torch(tmp_path):
    network, images = small(), pictures()
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert network_score(network, mapped, steps=1) == network_score(network, images, steps=1)
    assert network_score(network, images.numpy()[::-1][::-1], steps=1) == network_score(network, images, steps=1)


@pytest.mark.parametrize("name", TRAINED)
def test_the_seed_and_the_views_matter(name):
    found = [network_score(small(), pictures(200), score=name, steps=1, seed=s) for s in (0, 1)]
    found += [network_score(small(), pictures(200), score=name, steps=1, policy="medical")]
    assert all(a != b for a, b in itertools.combinations(found, 2))


def test_views_follow_the_number_of_channels():
    for channels, policy, other in ((3, "natural", "medical"), (1, "medical", "natural")):
        network, images = small(channels=channels), pictures(64, channels)
        found = {p: network_score(network, images, steps=1, policy=p) for p in (None, policy, other)}
        assert found[None] == found[policy] != found[other]


def test_the_weights_it_has_matter():
    assert all(len({network_score(small(s), pictures(), score=n, steps=1) for s in (0, 1)}) == 2 for n in TRAINED)


# --- one training for all


def test_scores_share_a_training_and_are_the_same_as_alone(monkeypatch):
    trainings, train = [], scores.train_briefly
    monkeypatch.setattr(scores, "train_briefly", lambda *a, **k: trainings.append(a[2]) or train(*a, **k))
    network, images = worn(), pictures(150)
    found = network_scores(network, images, scores=tuple(SCORES), steps=(5, 0, 2), seed=3)
    assert sorted(trainings) == ["barlow_twins", "simclr", "vicreg"]
    assert list(found) == list(SCORES)
    for name, values in found.items():
        assert list(values) == ([0, 2, 5] if name in TRAINED else [0])
        for steps, value in values.items():
            assert value == network_score(network, images, score=name, steps=steps, seed=3), (name, steps)


def test_learning_shows():
    torch.manual_seed(0)
    found = network_scores(ResNet((1, 1), 8), pictures(256), scores=("barlow_twins", "retrieval"), steps=(0, 40))
    assert all(values[40] > values[0] for values in found.values())


def test_networks_that_others_made():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = resnet18()
    network.feature_width = 512
    network.features = lambda x: nn.Sequential(*list(network.children())[:-1])(x).flatten(1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = network_scores(network, pictures(64, 3, 32, 32), scores=("rank", "depth"), steps=1)
    assert found["depth"][0] == 17 and found["rank"][1] > 1
    assert same(before, dict(network.state_dict()))


class Plain(nn.Module):
    feature_width = 216

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)

    def features(self, x):
        return F.relu(self.norm(self.layer(x - 0.5))).reshape(len(x), -1)


class Habits(Plain):
    "As public networks are: it writes in its input, flattens with `view`, and its train() gives nothing back."

    def train(self, mode=True):
        super().train(mode)

    def forward(self, x):
        return F.relu(self.norm(self.layer(x.sub_(0.5)))).view(len(x), -1)

    features = forward


@pytest.mark.parametrize("name", SCORES)
def test_habits_of_public_networks_change_nothing(name):
    pair = []
    for kind in (Plain, Habits):
        torch.manual_seed(0)
        pair.append(kind().double())
    first, second = (network_score(each, pictures(), score=name, steps=2) for each in pair)
    assert math.isfinite(first) and first == pytest.approx(second, rel=1e-6)


class Attends(nn.Module):
    feature_width = 8

    def __init__(self, activation="relu"):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=activation)
        self.layers = nn.TransformerEncoder(layer, 2)

    def features(self, x):
        return self.layers(self.patches(x).flatten(2).transpose(1, 2)).mean(1)


def test_a_transformer_has_its_products():
    torch.manual_seed(0)
    network, images = Attends(), pictures(64)
    assert network_score(network, images, score="depth") == 1 + 2 * 6
    macs = 4 * 8 * 48 + 2 * (4 * 8 * 24 + 2 * 4 * 4 * 8 + 4 * 8 * 8 + 2 * 4 * 8 * 16)
    assert network_score(network, images, score="macs") == macs
    Attends.forward = Attends.features
    try:
        assert count_macs(network, (3, 8, 8)) == network_score(network, images, score="macs") == macs
    finally:
        del Attends.forward


def test_naswot_sees_the_activations_of_a_transformer():
    torch.manual_seed(0)
    network, images = Attends(), pictures(64)
    found, fused = network_score(network, images, score="naswot"), torch.backends.mha.get_fastpath_enabled()
    assert math.isfinite(found) and fused
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert network_score(network, images, score="naswot") == found
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


class Tokens(nn.Module):
    "A perceptron of 16 or 64 places, which are the images' first, second, or one axis with the images."

    feature_width = 32

    def __init__(self, how, patch):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.patches, self.up = how, nn.Conv2d(3, 16, patch, patch), nn.Linear(16, 32)

    def features(self, x):
        x = self.up(self.patches(x).flatten(2).transpose(1, 2))
        if self.how == "places first":
            return torch.relu(x.transpose(0, 1)).mean(0)
        if self.how == "one axis":
            return torch.relu(x.reshape(-1, 32)).reshape(x.shape).mean(1)
        return torch.relu(x).mean(1)


@pytest.mark.parametrize("patch", [8, 4])  # with 64 places of 64 images no size tells which is which
@pytest.mark.parametrize("how", ["places first", "one axis"])
def test_naswot_finds_the_axis_of_the_images(how, patch):
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), np.uint8)
    found, wanted = (network_score(Tokens(one, patch), images, score="naswot") for one in (how, "images first"))
    assert found == wanted and math.isfinite(wanted)


@pytest.mark.parametrize("weights", [math.nan, 1e30])
def test_scores_without_training_of_maps_that_leave_the_numbers(weights):
    network = small()
    with torch.no_grad():
        for one in network.parameters():
            one.mul_(weights)
    assert network_score(network, pictures(64), score="expressivity") == -math.inf


def test_expressivity_of_half_precision_is_near_that_of_single():
    network, images = small(), pictures(64)
    whole = network_score(network, images, score="expressivity")
    assert network_score(network.half(), images, score="expressivity") == pytest.approx(whole, rel=0.02)


def test_macs_of_features_that_were_hung_onto_a_module():
    inner, outer = small(), nn.Module()
    outer.net, outer.feature_width, outer.features = inner, 5, lambda x: inner(x)
    assert network_score(outer, pictures(64), score="macs") == count_macs(inner, (3, 8, 8))


def test_training_that_leaves_the_numbers_is_the_worst_score():
    network = small()
    with torch.no_grad():
        network.end.weight.fill_(1e38)
    assert {network_score(network, pictures(), score=name, steps=2) for name in TRAINED} == {-math.inf}


# --- refusals


class Wrong(Small):
    def features(self, x):
        return self.stem(x)


class Pair(Small):
    def features(self, x):
        return x, x


class Backwards(Small):
    "Its first layer is the last that it names."

    def __init__(self):
        super().__init__()
        self._modules["stem"] = self._modules.pop("stem")


class Lazy(Small):
    def __init__(self):
        super().__init__()
        self.end = nn.LazyLinear(5)


def without_values():
    with torch.device("meta"):
        return Small()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"score": "barlow"}, "barlow_twins"),
        ({"score": 3}, "There is no score"),
        ({"score": "math:no_such"}, "module:Name"),
        ({"score": "no_such_module:score"}, "module:Name"),
        ({"steps": -1}, "steps is -1"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"policy": "natura"}, "natural"),
        ({"images": pictures(63)}, "64 images, but got 63"),
        ({"images": pictures().float() / 255}, "uint8"),
        ({"images": pictures()[0]}, "(N, C, H, W)"),
        ({"images": pictures(64, 1)}, "3 channels, but these have 1"),
        ({"network": Backwards(), "images": pictures(64, 1)}, "3 channels, but these have 1"),
        ({"network": Backwards(), "images": pictures(64, 3, 2, 2)}, "cannot read images of shape (3, 2, 2) (Run"),
        ({"network": Lazy()}, "wait for a first input: run it once"),
        ({"network": without_values()}, "on the meta device"),
        ({"images": [1, 2]}, "list"),
        ({"network": nn.Linear(3, 3)}, "features(x)"),
        ({"network": Wrong()}, "it should be (2, 5)"),
        ({"network": Pair()}, "gives tuple for 2 images"),
        ({"network": small().half()}, "leaves the numbers in float16"),
    ],
)
def test_refusals(change, words):
    arguments = {"network": small(), "images": pictures()} | change
    network, images = arguments.pop("network"), arguments.pop("images")
    with pytest.raises(UserError) as caught:
        network_score(network, images, **arguments)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_half_precision_is_scored_without_training_alone():
    network = small().half()
    assert math.isfinite(network_score(network, pictures(), score="naswot"))
    assert math.isfinite(network_score(network.bfloat16(), pictures(), score="retrieval", steps=2))


def test_what_only_counts_needs_no_values():
    for name in ("macs", "parameters", "depth"):
        assert network_score(without_values(), pictures(), score=name) == network_score(small(), pictures(), score=name)


def spread(held):
    return float(held.features.std())


def test_a_score_of_ones_own_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_scores", types.SimpleNamespace(spread=spread, after=Score(spread, "vicreg")))
    found = network_scores(small(), pictures(), scores=("my_scores:spread", "my_scores:after"), steps=2)
    assert found["my_scores:spread"].keys() == {0} and found["my_scores:after"].keys() == {2}


def test_a_score_of_ones_own_takes_what_was_held_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_scores", types.SimpleNamespace(none=lambda: 1.0, two=lambda held, steps: 1.0))
    for name in ("my_scores:none", "my_scores:two"):
        refused(f"The score {name} does not take", act=lambda name=name: network_score(small(), pictures(), score=name))


def test_nothing_to_score():
    for options in ({"scores": ()}, {"steps": ()}):
        with pytest.raises(UserError, match="at least one score"):
            network_scores(small(), pictures(), **options)


@pytest.mark.parametrize("value", [None, torch.eye(2), np.eye(2), "much", [1.0], 10**400])
def test_a_score_has_to_give_a_number(value):
    def wrong(held):
        return value

    refused("The score wrong gives", "one number", act=lambda: network_score(small(), pictures(), score=Score(wrong)))


def test_a_score_that_asks_for_embeddings_needs_an_objective():
    def looks(held):
        return float(held.embeddings[0].std())

    def score(objective=None):
        return network_score(small(), pictures(), score=Score(looks, objective), steps=1)

    refused("needs an objective", "Score(function, 'barlow_twins')", act=score)
    refused("'simclear': did you mean 'simclr'", act=lambda: score("simclear"))
    assert score("simclr") > 0


def test_the_public_name():
    assert ssnas_colab.network_score is network_score

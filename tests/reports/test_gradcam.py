"Class activation maps: they point to what matters, are the paper's formula, and leave no trace in the network."

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from inference.test_predict import made_run, network, pixels

from ssnas_colab.inference.predict import load_model
from ssnas_colab.reports.gradcam import class_activation_map, last_features, plot_maps

KINDS = ("searched", "resnet_small", "mobilenet_v3_small")


class Bright(torch.nn.Module):
    "Class 0 is as likely as the image is bright, class 1 as it is dark; one feature, four times smaller."

    def __init__(self):
        super().__init__()
        self.blocks, self.classifier = torch.nn.AvgPool2d(4), torch.nn.Linear(1, 2)
        self.classifier.weight.data = torch.tensor([[2.0], [-2.0]])

    def forward(self, x):
        return self.classifier(self.blocks(x).mean((2, 3)))


@pytest.mark.parametrize("row, column", [(0, 0), (0, 3), (3, 0), (2, 1)])
def test_the_map_peaks_where_it_matters(row, column):
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
    [found] = class_activation_map(Bright(), image, 0)
    assert found.shape == (16, 16) and found.max() == 1 and found.min() == 0
    peak = divmod(int(found.argmax()), 16)
    assert peak[0] // 4 == row and peak[1] // 4 == column
    assert found[4 * row + 1, 4 * column + 1] > 0.7 and found[(4 * row + 10) % 16, (4 * column + 10) % 16] == 0
    assert not class_activation_map(Bright(), image, 1).any()  # nothing speaks for the other class


def by_hand(net, x, classes):
    "Equations 1 and 2 of arXiv 1610.02391 with the whole graph kept, before anything is resized."
    if hasattr(net, "cells"):
        features = net.run(x)[0]
        score = net.classifier(features.mean((2, 3)))
    else:
        features = net.blocks(net.stem(x) if hasattr(net, "stem") else x)
        pooled = features.mean((2, 3))
        score = net.classifier(net.hidden(pooled) if hasattr(net, "hidden") else pooled)
    [gradient] = torch.autograd.grad(score[torch.arange(len(x)), classes].sum(), features)
    weights = gradient.sum((2, 3)) / gradient[0, 0].numel()
    maps = F.relu(torch.einsum("nk,nkij->nij", weights, features))
    maps = F.interpolate(maps[:, None], x.shape[2:], mode="bilinear")[:, 0].detach()
    return maps / maps.flatten(1).max(1).values.clamp(min=1e-30)[:, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_formula_for_every_kind_of_network(kind):
    net, x = network(kind).double(), torch.randn(5, 1, 24, 16, dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 1, 0])
    found = class_activation_map(net, x, classes)
    assert found.shape == (5, 24, 16) and found.dtype == torch.float32 and found.std() > 0.01
    torch.testing.assert_close(found, by_hand(net, x, classes).float())
    best = net(x).argmax(1)
    torch.testing.assert_close(class_activation_map(net, x), by_hand(net, x, best).float())


@pytest.mark.parametrize("kind", KINDS)
def test_it_leaves_no_trace(kind):
    net, x = network(kind), torch.randn(3, 1, 16, 16)
    net(x).sum().backward()
    net.train()
    last_features(net).eval()  # some parts in one mode, some in the other
    modes, state = [part.training for part in net.modules()], {k: v.clone() for k, v in net.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    plain = class_activation_map(net, x, 1)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            torch.testing.assert_close(class_activation_map(net, x.clone(), 1), plain)
            assert not torch.is_grad_enabled()
    net.requires_grad_(False)
    torch.testing.assert_close(class_activation_map(net, x, 1), plain)
    with pytest.raises(RuntimeError):
        class_activation_map(net, torch.randn(3, 2, 16, 16), 1)  # the wrong channels
    assert modes == [part.training for part in net.modules()] and not plain.requires_grad
    assert not any(part._forward_hooks for part in net.modules())
    assert all(torch.equal(net.state_dict()[k], v) for k, v in state.items())
    assert all(torch.equal(p.grad, old) for p, old in zip(net.parameters(), gradients, strict=True))


def test_another_layer_can_be_named_and_must_be_for_strangers():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    stranger = torch.nn.Sequential(*layers)
    x = torch.randn(2, 1, 8, 8)
    found = class_activation_map(stranger, x, 0, layer=stranger[1])
    # Its gradient differs from place to place (it is the last layer's weights), and is averaged.
    features, gradient = stranger[:2](x).detach(), stranger[3].weight[0].detach().view(4, 6, 6)
    maps = F.relu(torch.einsum("k,nkij->nij", gradient.sum((1, 2)) / 36, features))
    maps = F.interpolate(maps[:, None], (8, 8), mode="bilinear")[:, 0]
    assert maps.amax((1, 2)).min() > 0
    torch.testing.assert_close(found, maps / maps.amax((1, 2), keepdim=True))
    with pytest.raises(ValueError, match="not known where Sequential pools"):
        class_activation_map(stranger, torch.randn(2, 1, 8, 8), 0)


def titles(figure):
    return [axis.get_title("left") for axis in figure.axes]


def test_the_picture_says_truth_answer_and_probability(tmp_path):
    model, images = load_model(made_run(tmp_path / "run", network())), pixels(12)
    scores = model.scores(images)
    labels = scores.argmax(1)
    labels[1] = (labels[1] + 1) % 3
    figure = plot_maps(model, images, labels)
    told = titles(figure)
    assert len(told) == 16 and told[0] == f"is {model.class_names[labels[0]]}"
    assert told[8] == f"{model.class_names[labels[0]]} {scores[0].max():.0%}"
    assert [k for k in range(8) if told[8 + k].startswith("wrong: ")] == [1]
    heat = figure.axes[8].images[1].get_array()
    np.testing.assert_allclose(heat, class_activation_map(model, torch.from_numpy(images[:8]))[0])
    assert not plt.get_fignums()
    assert titles(plot_maps(model, images[:2]))[:2] == ["", ""]


def test_the_picture_of_a_bare_network_and_of_several_labels():
    net, images = network(channels=3), pixels(2, channels=3)
    labels, names = np.array([[1, 1, 1], [0, 0, 0]]), ["a class with a very long name", "b", "c"]
    how = {"inputs": lambda x: x.float() / 255, "task": "multi-label"}
    figure = plot_maps(net.train(), torch.from_numpy(images), labels, names, **how)
    with torch.no_grad():
        scores = net.eval()(torch.from_numpy(images).float() / 255).sigmoid()
    told = titles(figure)
    assert told[0] == "is a class with a..." and told[1] == "is none"
    assert told[2].endswith(f" {scores[0].max():.0%}") and not told[2].startswith("wrong")
    assert told[3].startswith("wrong: ")
    assert figure.axes[0].images[0].get_array().shape == (16, 16, 3)

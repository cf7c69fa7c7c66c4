"Exported networks of any kind: they answer, or are refused in a sentence."

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from oracle import damaged_bytes, damaged_json, for_any, told_or_right
from safetensors.torch import save

from ssnas_colab.inference.predict import load_model
from ssnas_colab.models.baselines import MobileNet, ResNet
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.models.network import Network


def _packed(facts, weights):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.json", facts)
        archive.writestr("model.safetensors", weights)
    return file.getvalue()


def _made():
    "(facts, weights as a safetensors file) of a small network of each kind."
    torch.manual_seed(0)
    genotype = GENOTYPES["FairDARTS_a"]
    facts = {
        "format": 3, "name": "searched", "kind": "genotype", "classifier": "linear", "genotype": str(genotype),
        "width": 2, "depth": 3, "parameters": 1, "tau": 0.5, "recipe": "crt", "loss": "cross_entropy",
        "task": "single-label", "class_names": ["a", "b", "c"], "size": [8, 8], "channels": 1, "mean": [0.5],
        "std": [0.2], "resize": "central square, bicubic", "window": "16 bits", "counts": [40, 20, 5], "images": 65,
        "metrics": {"accuracy": 0.5}, "temperature": 1.3, "thresholds": [0.2, None, 0.4],
    }  # fmt: skip
    yield facts, Network(genotype, 3, in_channels=1, width=2, depth=3)
    yield facts | {"kind": "resnet", "genotype": None, "width": None}, ResNet((2, 2, 2, 2), 2, 3, 1)
    yield facts | {"kind": "mobilenet", "genotype": None, "width": 0.1, "tau": None}, MobileNet(3, 1, 0.1)


MADE = [(facts, save({name: t.contiguous() for name, t in net.state_dict().items()})) for facts, net in _made()]


@st.composite
def _other_header(draw, weights):
    "A safetensors file whose header says something else."
    length = struct.unpack("<Q", weights[:8])[0]
    header = draw(damaged_json(json.loads(weights[8 : 8 + length]), most=2)).encode("utf-8", "surrogatepass")
    said = draw(st.sampled_from((len(header), len(header), 0, 2**40, 2**63)))
    return struct.pack("<Q", said) + header + weights[8 + length :]


@st.composite
def archives(draw):
    facts, weights = draw(st.sampled_from(MADE))
    what = draw(st.sampled_from(("facts", "facts", "header", "bytes", "weights")))
    if what == "bytes":
        return draw(damaged_bytes(_packed(json.dumps(facts), weights)))
    if what == "header":
        return _packed(json.dumps(facts), draw(_other_header(weights)))
    if what == "weights":
        return _packed(json.dumps(facts), draw(damaged_bytes(weights)))
    return _packed(draw(damaged_json(facts)).encode("utf-8", "surrogatepass"), weights)


def is_right(answers):
    return answers.shape[0] == 2 and np.isfinite(answers).all() and answers.min() >= 0 and answers.max() <= 1.000001


@pytest.mark.parametrize("number", range(3))
def test_whole_archives_answer(number, tmp_path):
    (tmp_path / "x.zip").write_bytes(_packed(json.dumps(MADE[number][0]), MADE[number][1]))
    assert load_model(tmp_path / "x.zip").predict(np.zeros((2, 8, 8), np.uint8)).shape == (2, 3)


@for_any(archives())
def test_any_archive(data, tmp_path):
    (tmp_path / "x.zip").write_bytes(data)

    def answers():
        model = load_model(tmp_path / "x.zip")
        assert str(model)
        return model.predict(np.zeros((2, *model.size), np.uint8))

    told_or_right(answers, is_right)

"Runs that earlier versions began go on, and end as they would have ended: `tests/data/v0.1.tar.xz` (see make_v0_1.py)."

import hashlib
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssnas_colab import Genotype, Run, load_model, run_pipeline
from ssnas_colab.sessions.session import session

DATA = Path(__file__).resolve().parents[1] / "data"
SEARCH = {"width": 2, "depth": 3, "nodes": 2, "batch_size": 32, "steps": 48, "embedding": 8}
EVALUATION = {
    "pretrain_steps": 20, "finetune_steps": 40, "batch_size": 32, "embedding": 8, "max_parameters": 6_000,
    "random_genotypes": 1, "resnet18": False, "mobilenet": False,
}  # fmt: skip


# What is compared are numbers and bits; no picture is.
pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture
def old(tmp_path):
    "The folder with the old runs, a fresh copy, with as many threads as they had."
    with tarfile.open(DATA / "v0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)


OTHERS = {"89e61c9f223aba11"}  # processors of the same capability that round otherwise, by `probe`: seen with AMX


def probe() -> str:
    "A hash of what PyTorch alone makes of a few numbers: differs where a processor rounds otherwise."
    generator, found = torch.Generator().manual_seed(0), []
    for side, groups in ((8, 1), (4, 4)):
        images = torch.randn(32, 4, side, side, generator=generator).to(memory_format=torch.channels_last)
        weights = [torch.randn(8, 4 // groups, size, size, generator=generator).requires_grad_() for size in (1, 3)]
        maps = sum(F.conv2d(images, weight, padding=weight.shape[-1] // 2, groups=groups) for weight in weights)
        rows = F.batch_norm(maps.relu(), None, None, training=True).flatten(1)
        product = rows.T @ rows / len(rows)
        found += [product.detach(), *torch.autograd.grad(product.square().mean().log(), weights)]
    return digest(tensor.contiguous().numpy() for tensor in found)[:16]


def facts_of(old):
    "What is kept beside the runs, and whether this machine gives the same bits."
    facts = json.loads((old / "facts.json").read_text())
    here = torch.__version__, torch.backends.cpu.get_cpu_capability()
    return facts, here == (facts["torch"], facts["cpu_capability"]) and probe() not in OTHERS


def go_on(path, **search):
    "Repeat the call that the run was made by."
    return run_pipeline("digits", path, seed=3, quiet=True, search=SEARCH | search, evaluation=EVALUATION)


def digest(arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def same_outcome(path, wanted, exact, drawn=False):
    """Whether the finished run at `path` ended as `wanted`: to the bit, or with the same genotype and within 1e-3.

    drawn: whether networks were drawn on the way; where numbers are rounded otherwise a draw may fall on the other
    side, and what follows is that of another network: the losses stay alike, the alphas need not.
    """
    run = Run.open(path)
    report = run.load_json("report.json")
    losses = [row["loss"] for row in run.load_json("search.json")["history"]]
    if drawn and not exact:
        np.testing.assert_allclose(losses, wanted["search_loss"], rtol=0.1)
        assert set(wanted["models"]) <= set(report["models"])
        return
    assert json.loads(run.load_text("genotype.json")) == wanted["genotype"]
    alphas = run.load_arrays("alphas.npz")
    for kind, rows in alphas.items():
        np.testing.assert_allclose(rows[-1], np.array(wanted["alphas"][kind]), rtol=0, atol=0 if exact else 1e-3)
        assert not exact or digest([rows]) == wanted["alphas_sha256"][kind]
    np.testing.assert_allclose(losses, wanted["search_loss"], rtol=0, atol=0 if exact else 1e-3)
    assert set(wanted["models"]) <= set(report["models"])
    for name, model in wanted["models"].items():
        found = report["models"][name]
        assert (found["parameters"], found["macs"]) == (model["parameters"], model["macs"])
        for curve, rows in model["curves"].items():
            near = {"rtol": 2e-3, "atol": 0.1 if curve == "validation" else 1e-3}  # of few images
            np.testing.assert_allclose(report["curves"][name][curve], rows, **({"rtol": 0} if exact else near))
        if exact:
            state = run.checkpoints.load(f"models/{name}")["state"]["model"]
            assert digest(value.numpy() for value in state.values()) == model["weights_sha256"], name
            for key in ("accuracy", "balanced_accuracy", "macro_auc", "recall_per_class"):
                assert found[key] == model[key], (name, key)


def test_a_search_that_was_stopped_half_way_goes_on(old):
    "By the relaxation fair; the one by sampled, search_sampled, is what was published to drive, below."
    facts, exact = facts_of(old)
    path = old / "search_fair"
    assert not Run.open(path).finished("search")
    go_on(path, relaxation="fair")
    same_outcome(path, facts["outcomes"]["fair"], exact)


def test_a_run_that_an_old_version_published_to_drive_goes_on(old):
    facts, exact = facts_of(old)
    kept = [path for path in (old / "search_sampled").rglob("*") if path.is_file()]
    with session(old / "local", remote=old / "drive", say=lambda text: None, settle=0):
        local = {path: old / "local" / path.relative_to(old / "search_sampled") for path in kept}
        assert len(kept) > 5 and all(path.read_bytes() == copy.read_bytes() for path, copy in local.items())
        assert not Run.open(old / "local").finished("search")
        go_on(old / "local")
    same_outcome(old / "local", facts["outcomes"]["sampled"], exact, drawn=True)
    with session(old / "another", remote=old / "drive", say=lambda text: None, settle=0):
        pass
    assert (old / "another" / "report.json").read_bytes() == (old / "local" / "report.json").read_bytes()


def test_an_evaluation_that_was_stopped_half_way_goes_on(old):
    facts, exact = facts_of(old)
    before = (old / "evaluation" / "models" / "searched.json").read_bytes()
    go_on(old / "evaluation")
    assert (old / "evaluation" / "models" / "searched.json").read_bytes() == before
    same_outcome(old / "evaluation", facts["outcomes"]["sampled"], exact)


def test_a_finished_run_is_shown_at_once(old):
    facts, _ = facts_of(old)
    before = {path: path.stat().st_mtime_ns for path in (old / "finished").rglob("*")}
    report = go_on(old / "finished")
    assert report["models"].keys() == facts["outcomes"]["sampled"]["models"].keys()
    assert {path: path.stat().st_mtime_ns for path in (old / "finished").rglob("*")} == before
    genotype = Genotype.from_json((old / "finished" / "genotype.json").read_text())
    assert json.loads(genotype.to_json()) == facts["outcomes"]["sampled"]["genotype"]


@pytest.mark.parametrize("what", ["finished", "exported.zip"])
def test_a_trained_network_of_an_old_run_predicts(old, what):
    facts, exact = facts_of(old)
    images = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    found = load_model(old / what).predict(images)
    np.testing.assert_allclose(found, facts["predicted"], rtol=0, atol=1e-6 if exact else 1e-3)


def test_what_an_old_archive_says_of_loading_it_works(old):
    with zipfile.ZipFile(old / "exported.zip") as archive:
        lines = archive.read("README.txt").decode().splitlines()
    [line] = [line.strip() for line in lines if "import load_model" in line]
    assert "ssnas_colab.core.using" in line
    names = {}
    exec(line, names)  # noqa: S102
    assert names["load_model"](old / "exported.zip").predict(np.zeros((8, 8), np.uint8)).shape[-1] == 10

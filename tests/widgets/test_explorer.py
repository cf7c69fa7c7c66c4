"The explorer without a browser: its state, its sentences, its widgets, its page, and what it leaves alone."

import json
import re
import warnings
import xml.etree.ElementTree as xml
from html.parser import HTMLParser
from pathlib import Path

import ipywidgets
import numpy as np
import pytest

from ssnas_colab.core.basics import UserError
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.genotype import GENOTYPES, Genotype
from ssnas_colab.models.network import Network, count_macs, count_parameters
from ssnas_colab.models.stages import STAGE_GENOTYPES, random_stages
from ssnas_colab.nas.derive import derive
from ssnas_colab.plots.style import OPERATIONS, THEMES
from ssnas_colab.sessions.colab import colab_link
from ssnas_colab.widgets.boards import class_sentence, unevenness
from ssnas_colab.widgets.explorer import (
    BEFORE,
    DERIVED,
    GIVEN,
    SEARCH,
    Explorer,
    Sizes,
    changes,
    draw_explorer,
    explain_edge,
    explore,
    explorer_page,
    news,
    refresh,
    save,
    story,
)


def alphas(epochs, seed=0):
    "Alphas that drift apart, {'normal', 'reduce'} to (epochs + 1, 14, 7); the first rows do not depend on `epochs`."
    drift = np.random.default_rng(seed).normal(0, 1, (2, 1, 14, 7)) * np.arange(31)[None, :, None, None] / 4
    return {kind: table[: epochs + 1].astype(np.float32) for kind, table in zip(("normal", "reduce"), drift)}


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "run", {"search": {"depth": 5, "nodes": 4, "relaxation": "fair"}})
    run.save_json("data.json", {"class_names": ["a", "b", "c"], "channels": 1, "size": [8, 8]})
    run.save_arrays("alphas.npz", **alphas(12))
    return run


@pytest.fixture
def unmeasured(monkeypatch):
    "Sizes are told by none of these tests, and to find them takes the longest."

    def of(sizes, genotype):
        raise UserError("")

    monkeypatch.setattr(Sizes, "of", of)


def files(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return derive(*args, **options)


def weights_at(epoch):
    return {kind: 1 / (1 + np.exp(-rows[epoch])) for kind, rows in alphas(12).items()}


@pytest.mark.parametrize("epoch, threshold", [(0, 0.85), (5, 0.6), (12, 0.85), (12, 0.97)])
def test_the_genotype_is_what_derive_makes_of_that_epoch(run, epoch, threshold, unmeasured):
    panel = explore(run)
    panel.epoch.value, panel.threshold.value = epoch, threshold
    assert panel.explorer.genotype() == quietly(weights_at(epoch), threshold=threshold)
    panel.rule.value = "top2"
    assert panel.explorer.genotype() == quietly(weights_at(epoch), method="top2")


def test_sizes_are_those_of_the_network_that_would_be_trained(run):
    explorer = Explorer(run)
    net = Network.within(explorer.genotype(), 3, in_channels=1, depth=5)
    told = story(explorer)[0]
    assert f"width {net.width}: {count_parameters(net):,} parameters" in told
    assert f"{count_macs(net, (1, 8, 8)) / 1e6:.2f} M MACs" in told
    net = Network(explorer.genotype(), 3, in_channels=1, depth=5, width=16)
    assert f"fixed width 16: {count_parameters(net):,} parameters" in told


def test_the_derived_genotype_and_its_rule_are_the_runs(run):
    chosen = quietly(weights_at(12), threshold=0.7, max_edges=1)
    run.save_text("genotype.json", chosen.to_json())
    run.save_json("derivation.json", {"method": "threshold", "threshold": 0.7, "max_edges": 1})
    explorer = Explorer(run)
    assert explorer.genotype() == explorer.genotype(DERIVED) == chosen and explorer.names()[:2] == [SEARCH, DERIVED]


def test_it_goes_on_with_a_search_that_is_still_running(run, unmeasured):
    panel = explore(run)
    run.save_arrays("alphas.npz", **alphas(15))
    assert "gone on to epoch 15" in news(panel.explorer, every=0)
    panel.explorer.checked -= 60
    panel.threshold.value = 0.5
    assert "gone on to epoch 15" in panel.note.value and panel.epoch.max == 12
    panel.again.click()
    assert panel.epoch.value == panel.epoch.max == panel.play.max == 15 and "3 more epochs" in panel.note.value
    assert panel.threshold.value == 0.5 and "epoch 15 of 15" in panel.pictures[0].value
    panel.epoch.value = 4
    run.save_arrays("alphas.npz", **alphas(17))
    run.finish("search", seconds=1.0)
    panel.again.click()
    assert panel.epoch.value == 4 and panel.epoch.max == 17 and "is finished" in panel.note.value


def test_a_search_begun_anew_is_noticed(run):
    explorer = Explorer(run)
    run.save_arrays("alphas.npz", **alphas(12, seed=1))
    assert "gone on" in news(explorer, every=0)
    refresh(explorer)
    assert news(explorer, every=0) == ""


def test_before_the_first_epoch(tmp_path, unmeasured):
    run = Run.open(tmp_path / "new", {"search": {"depth": 5}})
    panel = explore(run)
    assert [picture.value for picture in panel.pictures] == ["", "", ""] and "first epoch" in panel.text.value
    panel.saves["json"].click()
    assert "Nothing to save" in panel.note.value
    panel.other.value = "SNAS"
    run.save_arrays("alphas.npz", **alphas(2))
    panel.again.click()
    assert "epoch 2 of 2" in panel.pictures[0].value


def test_looking_changes_nothing_in_the_run(run):
    before = files(run)
    panel = explore(run)
    panel.epoch.value, panel.threshold.value, panel.other.value = 3, 0.5, "SNAS"
    panel.again.click()
    assert files(run) == before


def test_the_chosen_edge_is_explained_with_its_weights(run, unmeasured):
    panel = explore(run)
    panel.edge.value = ("normal", 0, 2)
    row = weights_at(12)["normal"][0]
    ranked = explain_edge(panel.explorer).split("Weights: ")[1].rstrip(".").split(", ")
    np.testing.assert_allclose([float(entry.split()[1]) for entry in ranked], np.sort(row)[::-1], atol=0.00501)
    assert draw_explorer(panel.explorer)[2].count('font-weight="bold"') == 1
    panel.edge.value = ""
    assert panel.explorer.chosen is None


def test_an_edge_that_is_not_there_any_more_is_let_go(run, unmeasured):
    panel = explore(run)
    panel.edge.value = ("normal", 3, 4)
    panel.shown.value = "FairDARTS_a"
    assert panel.explorer.chosen is None and panel.edge.value == ""


def test_clicks_choose_and_let_go(run, unmeasured):
    pytest.importorskip("anywidget", reason="clicks need anywidget")
    panel = explore(run)
    panel.listener.picked = "reduce 1 3 17"
    assert panel.edge.value == panel.explorer.chosen == ("reduce", 1, 3)
    panel.listener.picked = "reduce 1 3 18"
    assert panel.edge.value == ""


def test_without_clicks_pictures_have_no_buttons(run, unmeasured):
    panel = explore(run, clicks=False)
    assert panel.listener is None and 'role="button"' not in panel.pictures[0].value


def test_comparing(run, unmeasured):
    panel = explore("DARTS_V2")
    panel.other.value = "DARTS_V2"
    assert "0 edges only in DARTS_V2, 0 only in DARTS_V2, 16 in both" in panel.text.value
    panel.other.value = "SNAS"
    one, other = (set(GENOTYPES[n].normal) for n in ("DARTS_V2", "SNAS"))
    two, another = (set(GENOTYPES[n].reduce) for n in ("DARTS_V2", "SNAS"))
    assert f"{len(one - other) + len(two - another)} edges only in DARTS_V2" in panel.text.value


def test_saved_files_are_never_overwritten(run, tmp_path, monkeypatch, unmeasured):
    monkeypatch.chdir(tmp_path)
    panel = explore(run)
    for _ in range(2):
        for button in panel.saves.values():
            button.click()
    found = sorted(path.name for path in tmp_path.glob("genotype*"))
    name = "genotype_this_search_epoch_12_of_12"
    assert found == sorted(f"{name}{n}.{form}" for n in ("", "_2") for form in ("json", "svg", "png", "html"))
    assert Genotype.from_json((tmp_path / f"{name}_2.json").read_text()) == panel.explorer.genotype()
    assert "<svg" in (tmp_path / f"{name}.svg").read_text() and "var(" not in (tmp_path / f"{name}.svg").read_text()
    with pytest.raises(UserError, match="Nothing to save as gif"):
        save(panel.explorer, "gif")


def test_what_can_be_explored(run, tmp_path):
    (tmp_path / "mine.json").write_text(GENOTYPES["SNAS"].to_json())
    for what in (tmp_path / "mine.json", GENOTYPES["SNAS"], str(GENOTYPES["SNAS"]), str(tmp_path / "mine.json")):
        assert Explorer(what).genotype(GIVEN) == GENOTYPES["SNAS"]
    assert Explorer(str(run.path)).shown == SEARCH
    small = explore("SNAS", depth=5, num_classes=2, in_channels=1, size=(28, 28), max_parameters=50_000)
    assert "Widest within 50,000 parameters" in small.text.value and "1x28x28" in small.text.value
    assert "allow more parameters" in explore("SNAS", max_parameters=10).text.value


@pytest.mark.parametrize(
    "what, said",
    [
        ("SNASS", "no run at SNASS and no published genotype"),
        (3, "not int"),
        ("Genotype(normal=[1])", "No genotype to explore"),
    ],
)
def test_mistakes(what, said):
    with pytest.raises(UserError, match=said):
        explore(what)


def test_a_folder_without_a_run_and_a_wrong_option(tmp_path, run):
    with pytest.raises(UserError, match="no run at"):
        explore(tmp_path)
    with pytest.raises(UserError, match="widht"):
        explore(run, widht=3)
    run.save_json("search.json", {"relaxation": "foul"})
    with pytest.raises(UserError, match="unknown relaxation 'foul'"):
        explore(run)


def test_weights_that_are_not_finite_are_said_not_raised(run, unmeasured):
    panel = explore(run)
    broken = alphas(13)
    broken["normal"][13, 2, 1] = np.nan
    run.save_arrays("alphas.npz", **broken)
    panel.again.click()
    assert "not finite" in panel.text.value and panel.pictures[0].value == ""
    panel.epoch.value = 12
    assert "<svg" in panel.pictures[0].value


def test_every_control_has_a_description(run, unmeasured):
    panel = explore(run)
    lists = panel.shown, panel.other, panel.theme, panel.rule, panel.edge, panel.operation
    others = panel.epoch, panel.threshold, panel.again, panel.copy, *panel.saves.values()
    assert all(control.description for control in (*lists, *others))
    assert isinstance(panel, ipywidgets.VBox)


def test_stages_are_explored_by_their_blocks():
    panel = explore("mobilenet_v2", num_classes=4, in_channels=1, size=(24, 40), max_parameters=60_000)
    net = Network.within(STAGE_GENOTYPES["mobilenet_v2"], 4, in_channels=1, max_parameters=60_000)
    assert f"{count_parameters(net):,} parameters" in panel.pictures[0].value and panel.pictures[2].value == ""
    assert f"{count_macs(net, (1, 24, 40)) / 1e6:.2f} M MACs" in panel.text.value
    assert panel.edge.description == "Block" and len(panel.edge.options) == 1 + 16
    assert "Choose a block" in panel.text.value
    panel.edge.value = ("stage", 3, 1)
    said = explain_edge(panel.explorer)
    assert "stage 4, block 2 of 4: mbconv 3x3, expansion 6, without squeeze-excite, a shortcut around it;" in said
    stage = net.stages[3]
    assert f"{count_parameters(stage):,} parameters" in said and f"{stage[0].body[-1][0].out_channels} channels" in said
    assert "6 x 10 pixels" in said
    panel.edge.value = ("stage", 3, 0)
    assert "which halves the image" in panel.text.value and "an average and a 1x1 convolution" in panel.text.value


def test_clicks_choose_blocks(unmeasured):
    pytest.importorskip("anywidget", reason="clicks need anywidget")
    panel = explore("resnet18")
    panel.listener.picked = "stage 1 1 17"
    assert panel.edge.value == panel.explorer.chosen == ("stage", 1, 1)
    panel.listener.picked = "stage 1 1 18"
    assert panel.edge.value == ""


def test_stages_and_cells_are_compared_in_any_order(unmeasured):
    panel = explore("resnet18")
    panel.other.value = "resnet18"
    assert "Of 4 stages 0 differ." in panel.text.value
    panel.other.value = "mobilenet_v2"
    assert "Of 6 stages 6 differ: 1, 2, 3, 4, 5, 6." in panel.text.value
    panel.other.value = "mobilenet_v3_small"
    assert "Of 5 stages 5 differ: 1, 2, 3, 4, 5; the stem and the head differ." in panel.text.value
    panel.other.value = "mobilenet_v2"
    panel.edge.value = ("stage", 5, 0)  # which the one has and the other has not
    assert "resnet18: no such block. mobilenet_v2: stage 6, block 1 of 3" in panel.text.value
    panel.other.value = "SNAS"
    assert panel.edge.value == "" and "by size alone" in panel.text.value
    assert "normal cell" in panel.pictures[1].value and panel.pictures[1].value.count("var(--ss-differs") == 0
    panel.edge.value = ("normal", 0, 2)
    assert "nothing is chosen here" in panel.text.value
    panel.shown.value, panel.other.value = "SNAS", "mobilenet_v2"
    assert panel.edge.description == "Edge" and "by size alone" in panel.text.value
    panel.edge.value = ("stage", 0, 0)
    assert "stage 1, block 1 of 1: mbconv 3x3, expansion 1" in panel.text.value


def test_what_can_be_explored_of_stages(tmp_path, monkeypatch):
    genotype = random_stages(3)
    (tmp_path / "mine.json").write_text(genotype.to_json())
    for what in (tmp_path / "mine.json", genotype, str(genotype)):
        assert explore(what).explorer.genotype(GIVEN) == genotype
    monkeypatch.chdir(tmp_path)
    panel = explore(genotype)
    for button in panel.saves.values():
        button.click()
    assert (tmp_path / "genotype_the_given_genotype.json").read_text() == genotype.to_json() + "\n"
    assert "parameters" in (tmp_path / "genotype_the_given_genotype.svg").read_text()
    assert "allow more" in explore(genotype, max_parameters=10).text.value
    with pytest.raises(UserError, match="No genotype to explore"):
        explore('{"space": "stages", "stages": []}')


def test_a_run_that_searched_among_stages(tmp_path, unmeasured):
    run = Run.open(tmp_path / "run", {"search": {"space": "stages"}})
    panel = explore(run)
    assert "is not derived" in panel.text.value and panel.pictures[0].value == ""
    run.save_text("genotype.json", random_stages(8).to_json())
    panel.again.click()
    assert panel.shown.value == DERIVED and panel.explorer.genotype() == random_stages(8)
    assert SEARCH not in panel.explorer.names() and "<svg" in panel.pictures[0].value


# What changes over the epochs


def history(epochs):
    return [{"epoch": e, "loss": 1 / (e + 1), "alpha_loss": 2 / (e + 1)} for e in range(epochs)]


def parts(html, cls):
    "The elements of a class in all drawings of a piece of HTML."
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    return [part for one in drawings for part in xml.fromstring(one).iter() if part.get("class") == cls]


def test_the_chosen_edge_shows_its_weights_over_the_epochs(run, unmeasured):
    panel = explore(run)
    assert panel.charts.value == "", "no edge is chosen, and no loss is known before the search is finished"
    panel.edge.value = ("reduce", 1, 2)
    course = 1 / (1 + np.exp(-alphas(12)["reduce"][:, 1]))  # (13, 7)
    drawn = [part.get("d") for part in parts(panel.charts.value, "curve")]
    heights = [[float(y) for y in re.findall(r",([-\d.]+)", path)] for path in drawn]
    np.testing.assert_allclose(heights, 132 - 102 * course.T, atol=0.051)
    for epoch in (4, 12):
        panel.epoch.value = epoch
        values = [float(part.text) for part in parts(panel.charts.value, "value")]
        np.testing.assert_allclose(values, course[epoch], atol=0.00501)
    panel.shown.value = "SNAS"  # which has the edge, and no epochs
    assert panel.edge.value == ("reduce", 1, 2) and panel.charts.value == ""


def test_the_epoch_moves_a_mark_in_the_loss_curve(run, unmeasured):
    run.save_json("search.json", {"relaxation": "fair", "depth": 5, "history": history(12)})
    panel = explore(run)
    places = []
    for panel.epoch.value in range(13):
        [mark] = parts(panel.charts.value, "mark")
        places.append(float(re.search(r"translate\(([\d.]+),", mark.get("transform"))[1]))
        told = [part.text for part in parts(panel.charts.value, "value")]
        e = panel.epoch.value
        assert told == ([f"{1 / e:.2f}", f"{2 / e:.2f}"] if e else [None, None])
    np.testing.assert_allclose(np.diff(places), (408 - 46) / 12, atol=0.11)


def test_what_the_last_epoch_changed(run):
    explorer = Explorer(run)
    differed = 0
    for explorer.epoch in range(1, 13):
        before, now = (quietly(weights_at(explorer.epoch - k)) for k in (1, 0))
        kinds = "normal", "reduce"
        places = [{(kind, *edge) for kind in kinds for edge in getattr(one, kind)} for one in (before, now)]
        changed = {(kind, a, b) for kind, _, a, b in places[0] ^ places[1]}
        [said] = changes(explorer, most=99)
        assert f"Since epoch {explorer.epoch - 1}, " in said
        count = f"{len(changed)} edge{'s' * (len(changed) > 1)} changed" if changed else "the genotype stayed the same"
        assert count in said and (said.count(": ") == len(changed))
        new, old = (np.stack([weights_at(explorer.epoch - k)[kind] for kind in kinds]).ravel() for k in (0, 1))
        most = np.abs(new - old).argmax()
        assert f"from {old[most]:.2f} to {new[most]:.2f}" in said
        differed += bool(changed)
    assert 0 < differed, "otherwise nothing was tested"
    explorer.epoch = 0
    assert changes(explorer) == []
    explorer.shown = "SNAS"
    assert changes(explorer) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_only_what_differs_has_a_colour_and_a_legend_says_so(run, unmeasured, theme):
    panel = explore(run)
    panel.theme.value, panel.other.value, panel.epoch.value = theme, BEFORE, 5
    one, before = (quietly(weights_at(epoch)) for epoch in (5, 4))
    only = {(k, op, a, b) for k in ("normal", "reduce") for op, a, b in set(getattr(one, k)) - set(getattr(before, k))}
    drawn = parts(panel.pictures[0].value, "edge")
    assert 0 < len(only) < len(drawn), "otherwise nothing was tested"
    for edge in drawn:
        kind, a, b = edge.get("data-pick").split()
        text, op = xml.tostring(edge).decode(), edge.get("data-op")
        differs = (kind, op, int(a), int(b)) in only
        assert (THEMES[theme]["differs"] in text) == differs
        unused = "not used" in edge[0].text
        assert any(f"stroke: {colour}" in text for colour in OPERATIONS[theme].values()) == (differs and not unused)
    legend = [[part.text for part in one if part.text] for one in parts(panel.pictures[0].value, "legend")]
    assert legend == [["only here", "in both"]] * 2
    panel.other.value = ""
    assert not parts(panel.pictures[0].value, "legend")


def test_controls_that_would_change_nothing_are_off(run, tmp_path, unmeasured):
    panel = explore(run)
    moving = panel.play, panel.epoch, panel.threshold, panel.rule

    def off():
        return [control.disabled for control in moving]

    assert off() == [False] * 4
    panel.rule.value = "top2"
    assert off() == [False, False, True, False], "top2 asks for no threshold"
    panel.rule.value, panel.shown.value = "threshold", "PDARTS"
    assert off() == [True] * 4
    panel.other.value = SEARCH  # beside which the search is drawn
    assert off() == [False] * 4
    drawn = panel.pictures[1].value
    panel.epoch.value = 1
    assert panel.pictures[1].value != drawn and "epoch 1 of 12" in panel.pictures[1].value
    new = explore(Run.open(tmp_path / "new", {"search": {"depth": 5}}))
    for control in (*moving, new.play, new.epoch, new.rule, new.edge, new.other, new.copy, *new.saves.values()):
        assert control.disabled == (control not in moving), control
    new.explorer.run.save_arrays("alphas.npz", **alphas(0))
    new.again.click()
    assert new.epoch.disabled and new.play.disabled and not new.rule.disabled, "one epoch alone cannot be moved through"
    new.explorer.run.save_arrays("alphas.npz", **alphas(1))
    new.again.click()
    assert not new.epoch.disabled and "1 more epoch: the search is not finished, 1 epoch so far" in new.note.value


def test_one_is_not_many(run):
    one = Genotype([("skip_connect", 0, 2)], [("skip_connect", 0, 2)], [2], [2])
    explorer = Explorer(one, num_classes=1)
    explorer.other = "SNAS"
    said = " ".join(story(explorer))
    assert "1 edge in the normal cell and 1 edge in the reduction cell" in said and "1 class," in said
    facts = {"counts": {"train": [1]}, "images": {"train": 1}, "task": "single-label", "class_names": ["a"]}
    said += unevenness(facts) + class_sentence(facts, 0)
    said += unevenness({"counts": {"train": []}, "images": {"train": 1}, "task": "unlabelled"})
    explorer = Explorer("resnet18", num_classes=1, in_channels=1)
    explorer.other = "mobilenet_v2"
    said += " ".join(story(explorer)) + "".join(draw_explorer(explorer))
    assert not re.search(r"\b1 (edges|stages|blocks|classes|epochs|images|labels|channels)\b", said)


def test_the_genotype_is_copied(run, unmeasured):
    panel = explore(run)
    genotype = panel.explorer.genotype()
    assert panel.listener is None or panel.listener.text == str(genotype)
    panel.copy.click()
    shown = re.search("<pre.*?>(.*)</pre>", panel.note.value)[1]
    assert "ssnas-copy" in panel.copy._dom_classes and Explorer(shown.replace("&#x27;", "'")).genotype() == genotype


# The page that needs no kernel, and the notebook


class Parsed(HTMLParser):
    "The tags of a page, its addresses, and the text of its scripts."

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.addresses, self.inside = [], [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.inside = tag == "script"
        self.scripts += [""] * self.inside

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data

    def handle_endtag(self, tag):
        self.inside = False


EVIL = "</script><img src=x onerror=alert(1)>"


def test_the_page_holds_all_epochs_and_escapes_every_name(tmp_path):
    run = Run.open(tmp_path / EVIL.replace("/", "∕"), {"search": {"depth": 5, "nodes": 4, "relaxation": "fair"}})
    run.save_json("data.json", {"class_names": [EVIL] * 3, "channels": 1, "size": [8, 8]})
    run.save_arrays("alphas.npz", **alphas(3))
    explorer = Explorer(run)
    explorer.given = {EVIL: GENOTYPES["SNAS"]}  # under whatever name
    explorer.other, explorer.chosen, explorer.epoch = EVIL, ("normal", 0, 2), 2
    page = explorer_page(explorer)
    assert (explorer.epoch, explorer.chosen, explorer.other) == (2, ("normal", 0, 2), EVIL), "what is looked at stays"
    found = Parsed(page)
    assert found.tags.count("script") == 2 == page.count("</script>") and "img" not in found.tags
    assert found.addresses == [] and not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", page)
    data = json.loads(found.scripts[0])
    assert "<" not in found.scripts[0] and EVIL in " ".join(data["frames"][2]["said"])
    assert [frame["genotype"] for frame in data["frames"]] == [str(quietly(weights_at(e))) for e in range(4)]
    got = [[table[f"normal {a} {b}"] for a, b in ((0, 2), (1, 2))] for table in data["weights"]]
    np.testing.assert_allclose(got, [weights_at(e)["normal"][:2] for e in range(4)], atol=6e-5)


def test_a_page_of_what_has_no_epochs(tmp_path):
    data = json.loads(Parsed(explorer_page(Explorer("resnet18"))).scripts[0])
    [frame] = data["frames"]
    assert set(frame["told"]) == {f"stage {i} {j}" for i in range(4) for j in (0, 1)}
    page = explorer_page(Explorer("SNAS"))
    assert 'id="epoch"' not in page and 'id="table"' not in page
    with pytest.raises(UserError, match="needs a first epoch"):
        explorer_page(Explorer(Run.open(tmp_path / "new", {"search": {"depth": 5}})))


def test_an_epoch_that_is_not_finite_is_a_page_with_a_reason(run):
    broken = alphas(3)
    broken["normal"][2, 2, 1] = np.nan
    run.save_arrays("alphas.npz", **broken)
    data = json.loads(Parsed(explorer_page(Explorer(run))).scripts[0])
    assert "not finite" in data["frames"][2]["said"][0] and data["weights"][2]["normal 0 3"][1] is None
    assert data["frames"][3]["genotype"] == str(quietly(weights_at(3)))


def test_the_notebook_begins_with_the_run(run, tmp_path, monkeypatch):
    path = Path(__file__).resolve().parents[2] / "nbs/05_explorer.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    assert f"colab-badge.svg)]({colab_link('05_explorer')})" in sources[0]
    form, install, shown = [source for cell, source in zip(cells, sources) if cell["cell_type"] == "code"][:3]
    fields = [line.split(" = ")[0] for line in form.splitlines() if "#@param" in line]
    assert fields == ["RUN", "DRIVE_FOLDER", "REPOSITORY"] and install.startswith("#@title Install")
    asked = []
    monkeypatch.setattr("ssnas_colab.sessions.colab.run_path", lambda *where: asked.append(where) or tmp_path)
    monkeypatch.setattr("ssnas_colab.sessions.colab.show_user_errors", lambda: None)
    monkeypatch.setattr("ssnas_colab.widgets.explorer.explore", asked.append)
    for name, drive in (("", False), ("SNAS", False), (str(run.path), False), ("run", True)):
        space = {}
        exec(form.replace('RUN = ""', f"RUN = {name!r}") + "\n" + shown, space)
        assert space["what"] == (tmp_path / "run" if drive else name or "FairDARTS_b")
        assert asked == [("", "ssnas_colab")] * drive + [space["what"]]
        asked.clear()

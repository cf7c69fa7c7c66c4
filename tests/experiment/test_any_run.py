"The files of a run with anything in them: told by `ssnas show` and `ssnas status`, or refused in a sentence."

import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from oracle import bounded, damaged_json, for_any, is_sentence

from ssnas_colab.cli import main

ARCHIVE = Path(__file__).resolve().parents[1] / "data/v0.1.tar.xz"
NAMES = ["run.json", "search.json", "report.json", "data.json", "derivation.json", "genotype.json", "forecast.json"]
NAMES.append("finished/search.json")
with tarfile.open(ARCHIVE) as _archive:
    WHOLE = {name: json.load(_archive.extractfile(f"./finished/{name}")) for name in NAMES}
for _part in ("models", "curves"):  # of one network and one other
    WHOLE["report.json"][_part].pop("random_0")


@pytest.fixture
def run(tmp_path):
    "A finished run."
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data", members=[m for m in archive if m.name.startswith("./finished")])
    for command, what in (("show", ""), ("status", ""), ("compare", ""), ("show", "genotype.json")):
        assert main([command, str(tmp_path / "finished" / what)]) == 0  # so that all is imported that they need
    return tmp_path / "finished"


files = st.sampled_from(NAMES).flatmap(lambda name: st.tuples(st.just(name), damaged_json(WHOLE[name])))


@for_any(st.tuples(files, st.sampled_from(["show", "status", "compare"]), st.booleans()), long=2_000)
def test_any_file_of_a_run(case, run, capsys):
    (name, text), command, as_json = case
    before = (run / name).read_bytes()
    (run / name).write_text(text, errors="surrogatepass")
    try:
        with bounded():
            code = main([command, str(run), *["--json"] * as_json])
    finally:
        (run / name).write_bytes(before)
    told = capsys.readouterr()
    if code:
        assert code == 2 and is_sentence(told.err.strip()), told.err
    else:
        assert told.out.strip() and (not as_json or json.loads(told.out)) and "\x1b" not in told.out


@for_any(damaged_json(WHOLE["report.json"]), count=150, long=2_000)
def test_any_report_by_itself(text, run, tmp_path, capsys):
    (tmp_path / "report.json").write_text(text, errors="surrogatepass")
    with bounded():
        code = main(["compare", str(tmp_path / "report.json")])
    told = capsys.readouterr()
    assert is_sentence(told.err.strip()) if code else told.out.strip(), told.err

"Genotypes in any text: read and built, or refused in a sentence."

import json

from hypothesis import strategies as st
from oracle import damaged_bytes, damaged_json, for_any, told_or_right

from ssnas_colab.models.genotype import GENOTYPES, genotype_from_json, load_genotype, parse_genotype, summary
from ssnas_colab.models.network import Network
from ssnas_colab.models.stages import STAGE_GENOTYPES, Block, Stage, StageGenotype, random_stages

CELLS = [genotype.to_dict() for genotype in GENOTYPES.values()]
CELLS.append({kind: [["sep_conv_5x5", s, t] for t in range(2, 64) for s in range(t)] for kind in ("normal", "reduce")})
CELLS[-1] |= dict.fromkeys(("normal_concat", "reduce_concat"), list(range(2, 64)))
_CELL = Block("cell", genotype=GENOTYPES["PDARTS"])
STAGES = [genotype.to_dict() for genotype in (*STAGE_GENOTYPES.values(), *map(random_stages, range(5)))]
STAGES.append(StageGenotype((Stage((_CELL, _CELL)), Stage((_CELL,), 2.0, 2))).to_dict())


def is_read(genotype):
    "It is the same after it is written, and can be told and built, or is too large to be."
    assert genotype_from_json(genotype.to_json()) == parse_genotype(str(genotype)) == genotype and summary(genotype)

    def build():
        import torch

        with torch.device("meta"):
            return Network(genotype, 10, depth=5, width=2)

    told_or_right(build)
    return True


@for_any(st.sampled_from(CELLS[:-1]).flatmap(damaged_json))
def test_any_json_of_cells(text, tmp_path):
    (tmp_path / "genotype.json").write_text(text, errors="surrogatepass")
    told_or_right(lambda: load_genotype(tmp_path), is_read)


@for_any(st.sampled_from(STAGES).flatmap(damaged_json))
def test_any_json_of_stages(text, tmp_path):
    (tmp_path / "genotype.json").write_text(text, errors="surrogatepass")
    told_or_right(lambda: load_genotype(tmp_path), is_read)


@for_any(st.sampled_from([str(one).encode() for one in GENOTYPES.values()]).flatmap(damaged_bytes))
def test_any_printed_text(text):
    told_or_right(lambda: parse_genotype(text.decode("utf-8", "replace")), is_read, errors=ValueError)


def test_a_full_genotype_is_read_and_too_large_to_be_built(tmp_path):
    (tmp_path / "genotype.json").write_text(json.dumps(CELLS[-1]))
    assert told_or_right(lambda: load_genotype(tmp_path), is_read)

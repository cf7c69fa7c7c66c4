"""A space of one's own: the wide space with stages of cells in it.

`ssnas run --space mixed:MixedSpace`, with this folder on PYTHONPATH. All cells of a network are drawn as one genotype
of cells, in the space of FairDARTS; a stage of them has one or two.
"""

import dataclasses

import numpy as np

from ssnas_colab.core.seeding import derived_seed
from ssnas_colab.models.stages import Block
from ssnas_colab.strategies.space import CellSpace, StageSpace


class MixedSpace(StageSpace):
    "Stages of residual blocks, of inverted residuals, or of cells; each stage is of cells with probability 1/2."

    def draw(self, seed):
        made, cells = super().draw(seed), CellSpace(self.fits).draw(derived_seed(seed, "cells"))
        rng = np.random.default_rng(derived_seed(seed, "which"))
        return self.with_cells(made, cells, [bool(rng.integers(2)) for _ in made.stages])

    def with_cells(self, genotype, cells, which):
        "The genotype with stages of `cells` where `which` says so, of inverted residuals where it no longer does."
        stages = []
        for stage, here in zip(genotype.stages, which, strict=True):
            is_cell, count = stage.blocks[0].kind == "cell", len(stage.blocks)
            block = Block("cell", genotype=cells) if here else Block() if is_cell else stage.blocks[0]
            stages.append(dataclasses.replace(stage, blocks=(block,) * (min(count, 2) if here else count)))
        return dataclasses.replace(genotype, stages=tuple(stages))

    def mutate(self, genotype, seed):
        "An edge of the cells, or whether a stage is of cells, or what `mutate_stages` changes; a third each."
        made = genotype
        for attempt in range(100):  # a change may have no effect, as a third cell in a stage
            if made == genotype:
                made = self._mutated(genotype, derived_seed(seed, attempt))
        return made

    def _mutated(self, genotype, seed):
        rng = np.random.default_rng(seed)
        which = [stage.blocks[0].kind == "cell" for stage in genotype.stages]
        cells = next((stage.blocks[0].genotype for stage in genotype.stages if stage.blocks[0].kind == "cell"), None)
        what = rng.integers(3)
        if what == 0 and cells is not None:
            return self.with_cells(genotype, CellSpace(self.fits).mutate(cells, derived_seed(seed, "cells")), which)
        if what <= 1:
            i = rng.integers(len(which))
            which[i] = not which[i]
            cells = cells or CellSpace(self.fits).draw(derived_seed(seed, "cells"))
            return self.with_cells(genotype, cells, which)
        made = super().mutate(genotype, seed)
        return self.with_cells(made, cells, [stage.blocks[0].kind == "cell" for stage in made.stages])

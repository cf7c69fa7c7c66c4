"The supernet's definition, as nbs/nas/02_supernet.ipynb writes it down to be read: its naive cells, run here."

import json
from pathlib import Path

from ssnas_colab.nas import supernet

NOTEBOOK = Path(__file__).parents[2] / "nbs" / "nas" / "02_supernet.ipynb"
names = dict(vars(supernet))
for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
    source = "".join(cell["source"])
    if source.startswith(("class MixedOp", "class SearchCell", "class ReferenceSupernet")):
        exec(source.split("\n\n\n")[0], names)
ReferenceSupernet = names["ReferenceSupernet"]

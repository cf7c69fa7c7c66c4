"The public names and where they live, one a line: for type checkers and editors, and for `__init__.py`, which reads them here."

from .core.basics import UserError as UserError
from .data.imbalance import long_tailed_counts as long_tailed_counts
from .experiment.run import Run as Run
from .inference.predict import load_model as load_model
from .models.genotype import Edge as Edge
from .models.genotype import GENOTYPES as GENOTYPES
from .models.genotype import Genotype as Genotype
from .models.genotype import PRIMITIVES as PRIMITIVES
from .models.genotype import load_genotype as load_genotype
from .models.network import Network as Network
from .models.network import count_macs as count_macs
from .models.network import count_parameters as count_parameters
from .nas.derive import derive as derive
from .nas.relaxations import zero_one_loss as zero_one_loss
from .nas.scores import network_score as network_score
from .nas.supernet import Supernet as Supernet
from .plots.genotype import plot_genotype as plot_genotype
from .stages.derivation import derive_stage as derive_stage
from .stages.evaluation import evaluate as evaluate
from .stages.loader import ImageData as ImageData
from .stages.loader import load_data as load_data
from .stages.pipeline import run_pipeline as run_pipeline
from .stages.search import search as search
from .training.ssl_losses import barlow_twins_loss as barlow_twins_loss
from .training.ssl_losses import nt_xent_loss as nt_xent_loss
from .widgets.explorer import explore as explore

__version__: str

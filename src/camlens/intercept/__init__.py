"""Intercept a model's calls: backward rules of ReLUs, attention as it is computed.

The only folder that intercepts calls. The model is not touched, and other threads are not affected.
"""

from .attention import AttentionProbabilities as AttentionProbabilities
from .attention import MeanProbabilities as MeanProbabilities
from .modes import Interception as Interception
from .modes import UnbrokenGradients as UnbrokenGradients
from .rectifiers import UNRULED as UNRULED
from .rectifiers import BackwardRule as BackwardRule
from .rectifiers import Rule as Rule
from .watching import AttentionWatch as AttentionWatch

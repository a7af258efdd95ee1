"""Intercept a model's calls: backward rules of ReLUs, attention as it is computed.

The only folder that intercepts calls. The model is not touched, and other threads are not affected.
"""

from .attention import AttentionProbabilities as AttentionProbabilities
from .attention import MeanProbabilities as MeanProbabilities
from .attention_relevance import AttentionRelevance as AttentionRelevance
from .linear_maps import Dense as Dense
from .modes import Interception as Interception
from .modes import UnbrokenGradients as UnbrokenGradients
from .rectifiers import UNRULED as UNRULED
from .rectifiers import BackwardRule as BackwardRule
from .rectifiers import Rule as Rule
from .relevance import Relevance as Relevance
from .relevance import Rules as Rules
from .watching import AttentionWatch as AttentionWatch

"""Intercept a model's calls: backward rules of ReLUs, attention that is twice differentiable.

The only folder that intercepts calls. The model is not touched, and other threads are not affected.
"""

from .attention_relevance import AttentionRelevance as AttentionRelevance
from .linear_maps import Dense as Dense
from .modes import Interception as Interception
from .modes import UnbrokenGradients as UnbrokenGradients
from .rectifiers import UNRULED as UNRULED
from .rectifiers import BackwardRule as BackwardRule
from .rectifiers import Rule as Rule
from .relevance import Relevance as Relevance
from .relevance import Rules as Rules

"""Intercept a model's calls: backward rules of ReLUs, attention, relevance.

The only folder that intercepts calls. The model itself is not changed, and other threads are not
affected.
"""

from .attention_calls import AttentionCalls as AttentionCalls
from .attention_probabilities import AttentionProbabilities as AttentionProbabilities
from .attention_probabilities import MeanProbabilities as MeanProbabilities
from .modes import Interception as Interception
from .modes import UnbrokenGradients as UnbrokenGradients
from .rectifiers import UNRULED as UNRULED
from .rectifiers import BackwardRule as BackwardRule
from .rectifiers import Rule as Rule
from .relevance import AttentionRelevance as AttentionRelevance
from .relevance import Relevance as Relevance
from .relevance import Rules as Rules

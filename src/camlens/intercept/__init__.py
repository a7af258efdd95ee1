"""Function modes that intercept a model's calls: backward rules of ReLUs, attention, relevance.

All interception of calls is in this package. It does not change the model itself and does not
affect other threads.
"""

from .attention_calls import AttentionCalls as AttentionCalls
from .attention_probabilities import AttentionProbabilities as AttentionProbabilities
from .attention_probabilities import MeanProbabilities as MeanProbabilities
from .first_inputs import FirstInput as FirstInput
from .first_inputs import FirstInputs as FirstInputs
from .modes import Interception as Interception
from .modes import UnbrokenGradients as UnbrokenGradients
from .rectifiers import UNRULED as UNRULED
from .rectifiers import BackwardRule as BackwardRule
from .rectifiers import Rule as Rule
from .relevance import AttentionRelevance as AttentionRelevance
from .relevance import Relevance as Relevance
from .relevance import Rules as Rules

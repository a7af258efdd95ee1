"""Layer-wise relevance propagation: function modes that give a model's calls other gradients."""

from .layers import Relevance as Relevance
from .layers import Rules as Rules
from .transformers import AttentionRelevance as AttentionRelevance

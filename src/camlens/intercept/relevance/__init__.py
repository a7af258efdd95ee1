"""Function modes of layer-wise relevance propagation, which replace gradients."""

from .layers import Relevance as Relevance
from .layers import Rules as Rules
from .transformers import AttentionRelevance as AttentionRelevance

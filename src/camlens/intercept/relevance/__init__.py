"""Function modes for layer-wise relevance propagation (LRP), which modify gradients."""

from .layers import Relevance as Relevance
from .layers import Rules as Rules
from .transformers import AttentionRelevance as AttentionRelevance

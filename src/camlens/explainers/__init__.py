"""The explainers: objects that wrap a model and return an explanation when called."""

from . import (
    attention,
    cams,
    concepts,
    full_grad,
    image_gradients,
    layer_changes,
    legrad,
    paths,
    perturbations,
    relevance,
    score_cam,
    smooth_grad,
)
from .attention import *
from .base import Attribution, Explainer
from .cams import *
from .concepts import *
from .full_grad import *
from .image_gradients import *
from .layer_changes import *
from .layer_explainer import LayerAttribution, LayerExplainer
from .legrad import *
from .paths import *
from .perturbations import *
from .relevance import *
from .score_cam import *
from .smooth_grad import *

__all__ = ["Attribution", "Explainer", "LayerAttribution", "LayerExplainer"]
# Each explainer is named once, in the module that holds it.
__all__ += attention.__all__
__all__ += cams.__all__
__all__ += concepts.__all__
__all__ += full_grad.__all__
__all__ += image_gradients.__all__
__all__ += layer_changes.__all__
__all__ += legrad.__all__
__all__ += paths.__all__
__all__ += perturbations.__all__
__all__ += relevance.__all__
__all__ += score_cam.__all__
__all__ += smooth_grad.__all__

"""The experiments of the papers, one file each: a model and arrays in, plain numbers out, the model left as it was."""
from .gradient_flow import gradient_flow
from .responses import responses

__all__ = ["gradient_flow", "responses"]

"""This package helps to test code that students or users write: backward passes, layers, and the tests themselves.

pairs.py checks a plain forward and backward function, layers.py a Module, planting.py plants bugs in a function to see
whether a test finds them, and plugin.py has the fixtures for pytest: `pytest_plugins = ["minires.testing.plugin"]`.
"""
from .layers import check_layer
from .pairs import PairReport, check_backward
from .planting import changed, planted, survivors

__all__ = ["PairReport", "changed", "check_backward", "check_layer", "planted", "survivors"]

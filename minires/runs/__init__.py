"""Training runs, each in a folder of its own: configured, trained, resumed, swept over and reported."""
from .config import RunConfig, configure
from .metrics import Line
from .metrics import read as read_metrics
from .run import Outcome, Trained, read, read_config, train

__all__ = ["Line", "Outcome", "RunConfig", "Trained", "configure", "read", "read_config", "read_metrics",
           "train"]

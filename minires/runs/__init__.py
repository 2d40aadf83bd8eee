"""Configure, train, resume, sweep and report training runs. Each run has its own folder."""
from .config import RunConfig, configure
from .metrics import Line
from .metrics import read as read_metrics
from .run import Outcome, Trained, read, read_config, train

__all__ = ["Line", "Outcome", "RunConfig", "Trained", "configure", "read", "read_config", "read_metrics",
           "train"]

"""Training runs, each in a folder of its own: configured, trained, resumed, swept over and reported."""
from .config import configure
from .run import Outcome, Trained, read, read_config, read_metrics, train

__all__ = ["Outcome", "Trained", "configure", "read", "read_config", "read_metrics", "train"]

"""Training the models under test: losses, schedules and a loop over the bounds and attacks of the package."""

from lpverify.training.config import TrainConfig, read_config
from lpverify.training.loop import train
from lpverify.training.methods import METHODS

__all__ = ["METHODS", "TrainConfig", "read_config", "train"]

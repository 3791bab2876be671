"""The replication's experiments on any model: a bank, its R sweep, its annotations, findings, a report."""

from melbo.study.experiments import Experiment, experiments, run_experiment
from melbo.study.finding import Finding
from melbo.study.presets import PRESETS, Preset, StudyConfig, find_preset, quick
from melbo.study.run import Progress, Study

__all__ = [
    "PRESETS",
    "Experiment",
    "Finding",
    "Preset",
    "Progress",
    "Study",
    "StudyConfig",
    "experiments",
    "find_preset",
    "quick",
    "run_experiment",
]

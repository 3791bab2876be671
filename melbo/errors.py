"""Errors for people who use MELBO: each says what was received, what is allowed and what to do next."""


class MelboError(Exception):
    """Base of every error that bad input or a missing resource causes. One clear line; no traceback is needed."""


class ConfigError(MelboError):
    """A setting is out of range or does not fit the model."""


class PromptError(MelboError):
    """A prompt is empty, too long, or does not fit the chat template."""


class ModelError(MelboError):
    """A model cannot be found, loaded or understood."""


class BankError(MelboError):
    """A vector bank is missing, damaged, of an unknown version, or made for another model."""


class HubError(MelboError):
    """The Hub refuses, lacks or cannot deliver what was asked of it, or a name or card breaks its rules."""


class TrainingError(MelboError):
    """Discovery cannot go on: the objective is not finite, or it was told to stop."""


class MemoryLimitError(MelboError):
    """The device is too small, even for one row at a time."""


class MetricError(MelboError):
    """A metric cannot be computed: its input is empty or of the wrong shape, or the model it needs is missing."""


class JudgeError(MelboError):
    """The LLM judge is not set up, cannot be reached, is over its budget, or its answer cannot be read."""


class ExportError(MelboError):
    """A file cannot be written: its format cannot hold this, it exists already, or a package is missing."""


class CorpusError(MelboError):
    """A corpus is missing, empty, unreadable, or of an unknown kind, or a result made from one is damaged."""


class SaeError(MelboError):
    """A sparse autoencoder is missing, damaged, of an unsupported kind, or made for another model, width or layer."""


class TaskError(MelboError):
    """A task file is malformed, its training and test prompts overlap, or a task lacks what a baseline needs."""


class MissingPackageError(MelboError):
    """A package is not installed that only an extra of melbo brings."""

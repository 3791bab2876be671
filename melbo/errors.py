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


class TrainingError(MelboError):
    """Discovery cannot go on: the objective is not finite, or it was told to stop."""


class MemoryLimitError(MelboError):
    """The device is too small, even for one row at a time."""

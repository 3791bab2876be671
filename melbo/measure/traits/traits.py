"""Which traits an answer has that the unsteered answer to the same prompt has not."""

from collections.abc import Sequence

import torch

from melbo.measure.completions import Measurement
from melbo.measure.embeddings import Embedder
from melbo.measure.text_metrics import LANGUAGES
from melbo.measure.traits.forms import FORMS
from melbo.measure.traits.topics import TopicEar

COMPLIES = "Complies"
REFUSES = "Refusal"
LANGUAGE = "language"
ORDER = {form.name: i for i, form in enumerate(FORMS)}


def forms_of(text: str) -> frozenset[str]:
    """Names of the forms that a text has."""
    return frozenset(form.name for form in FORMS if text.strip() and form.shows(text))

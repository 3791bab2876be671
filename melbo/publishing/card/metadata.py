"""A model card's metadata, and the Hub's rules for it, checked without the Hub.

Rules: https://huggingface.co/docs/hub/model-cards, https://huggingface.co/docs/hub/repositories-licenses
"""

import re

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from melbo.bank.annotation import Annotation, ScaleRow
from melbo.bank.facts import BaseModel
from melbo.bank.vector_bank import VectorBank
from melbo.errors import HubError
from melbo.models.packaged import packaged

LICENSE = "apache-2.0"
"""Where none is named."""
_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-
openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-
by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-
nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-
permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl
gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr
mpl-2.0 odc-by odbl openrail++ openmdw-1.0 osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
grok2-community gemma unknown other
"""
LICENSES = frozenset(_LICENSES.split())
MEASURES = {
    "coherence": "Coherence, 0 to 10",
    "refusal": "Refusal rate",
    "change": "Change (cosine distance)",
    "off_target": "Innocuous prompts changed (share)",
}
"""Metrics of an annotation that the card shows."""
_LANGUAGE = re.compile(r"[a-z]{2,3}")


def metadata(bank: VectorBank, title: str, license: str | None, more: list[EvalResult]) -> ModelCardData:
    """What the Hub indexes.

    Args:
        more: results beside those of the annotations.

    Raises:
        HubError: the licence is none of the Hub's.
    """
    if license is not None and license not in LICENSES:
        raise HubError(f"the Hub knows no licence {license!r}; use its identifier, such as apache-2.0, mit or other.")
    base = hub_id(bank.base_model)
    return ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base else None,
        library_name="melbo",
        license=license or LICENSE,
        language=languages(bank),
        pipeline_tag="text-generation",
        tags=["melbo", "steering-vectors", "activation-steering", "interpretability", f"melbo-{bank.config.method}"],
        model_name=title,
        eval_results=results(bank) + more or None,
        ignore_metadata_errors=False,
    )


def hub_id(base: BaseModel) -> str | None:
    """The base model's repository; None for a local or the embedded model."""
    if packaged(base.id) is not None:  # whose weights may be those of the package
        return base.id
    local = base.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", base.revision)
    if local or base.id.count("/") != 1:
        return None
    try:
        validate_repo_id(base.id)
    except HFValidationError:
        return None
    return base.id


def languages(bank: VectorBank) -> list[str]:
    """English, in which the prompts usually are, and the languages that vectors switch to (tags "language:de")."""
    found = {"en"}
    for note in bank.annotations:
        for tag in note.tags:
            code = tag.removeprefix("language:") if tag.startswith("language:") else ""
            if _LANGUAGE.fullmatch(code):
                found.add(code)
    return sorted(found)


def measured(note: Annotation, name: str) -> tuple[float | None, float | None]:
    """A metric of one vector at its best scale, and the same of random vectors."""
    metrics = note.metrics or ScaleRow()
    return getattr(metrics, name), getattr(metrics.control, name, None)


def result(of: str, metric: str, title: str, value: float, dataset: str) -> EvalResult:
    """One result for the card's metadata: of the prompts of the annotation, or of those of the sweep."""
    return EvalResult(
        task_type="text-generation",
        dataset_type=dataset,
        dataset_name=f"Prompts of the {of}",
        metric_type=metric,
        metric_name=title,
        metric_value=round(value, 4),
    )


def results(bank: VectorBank) -> list[EvalResult]:
    """Means over the annotated vectors that do anything, at their best scales, each beside that of random vectors."""
    found = []
    acting = [note for note in bank.annotations if not note.is_dud]
    for name, title in MEASURES.items():
        pairs = [measured(note, name) for note in acting]
        for values, suffix, of in (
            ([steered for steered, _ in pairs if steered is not None], "", "at their best scales"),
            (
                [control for _, control in pairs if control is not None],
                "-random-control",
                "beside random ones of the same norm",
            ),
        ):
            if values:
                mean = sum(values) / len(values)
                said = f"{title}, mean over {len(values)} vectors, {of}"
                found.append(result("annotation", f"{name}{suffix}", said, mean, dataset="melbo-prompts"))
    return found


def check_card(text: str) -> None:
    """Raise HubError unless the card's metadata keeps the Hub's rules."""
    try:
        card = ModelCard(text)
    except Exception as error:  # yaml and huggingface_hub raise several kinds
        raise HubError(f"the card's metadata cannot be read: {' '.join(str(error).split())[:200]}.") from error
    data = card.data.to_dict()
    wrong = []
    if data.get("license") not in LICENSES:
        wrong.append(f"license {data.get('license')!r} is none of the Hub's")
    if not data.get("language") or not all(_LANGUAGE.fullmatch(str(code)) for code in data["language"]):
        wrong.append(f"language {data.get('language')!r} is no list of ISO 639 codes")
    tags = data.get("tags") or []
    if "melbo" not in tags or not all(isinstance(tag, str) and 0 < len(tag) <= 100 for tag in tags):
        wrong.append("tags must be short texts, 'melbo' among them")
    base = data.get("base_model")
    if base is not None and hub_id(BaseModel(str(base), None, 1, 1)) is None:
        wrong.append(f"base_model {base!r} is no repository")
    if data.get("base_model_relation", "adapter") not in ("adapter", "finetune", "merge", "quantized"):
        wrong.append(f"base_model_relation is {data['base_model_relation']!r}")
    if wrong:
        raise HubError(f"the card breaks the Hub's rules: {'; '.join(wrong)}.")

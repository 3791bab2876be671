"""A conversation as JSON, as Markdown, and as the Python that repeats its last answer."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import melbo
from melbo.app.choices import vector_label
from melbo.app.conversation import before_last_question, fit
from melbo.app.tabs.steer.handlers import caption
from melbo.app.tabs.steer.settings import Settings
from melbo.bank.vector_bank import VectorBank
from melbo.errors import PromptError
from melbo.models.load import LoadedModel
from melbo.prompts import Message


def bank_name(bank: VectorBank) -> str:
    """How a person names the bank: its repository, or its folder without the path."""
    source = bank.source
    if source is not None and source.repo:
        return source.repo
    return f"vectors/{source.folder.name}" if source is not None and source.folder is not None else "path/to/bank"


def bank_place(bank: VectorBank, space: str | None) -> str:
    """What `VectorBank.from_pretrained` takes: a repository, or the path of a folder, which of a Space is the one in a
    clone of it.
    """
    source = bank.source
    if source is None or source.repo or source.folder is None or space is not None:
        return bank_name(bank)
    return str(source.folder.resolve())


def _install(space: str | None) -> str:
    """A comment: the command after which the code runs."""
    if space:
        name = shlex.quote(space.rpartition("/")[2])
        clone = f"git clone https://huggingface.co/spaces/{space}"
        return f"# {clone} && cd {name} && pip install -r requirements.txt"
    root = Path(melbo.__file__).resolve().parents[1]
    if space is None and (root / "pyproject.toml").is_file():
        return f"# pip install {shlex.quote(str(root))}"
    return f"# melbo is installed for {sys.executable}" if space is None else "# needs the melbo that this app runs"


def as_json(
    loaded: LoadedModel, bank: VectorBank, left: Sequence[Message], right: Sequence[Message], settings: Settings
) -> str:
    """Both chats with everything that made them."""
    values = {
        "model": {"name": loaded.name, "revision": loaded.revision},
        "bank": {"name": bank_name(bank), "revision": bank.source.revision if bank.source else None},
        "layer": bank.layer,
        "settings": asdict(settings),
        "labels": [vector_label(bank, vector) for vector, _ in settings.mix],
        "unsteered": list(left),
        "steered": list(right),
    }
    return json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False)


def as_markdown(
    loaded: LoadedModel, bank: VectorBank, left: Sequence[Message], right: Sequence[Message], settings: Settings
) -> str:
    """Both chats to read, one after the other."""
    head = [
        "# Unsteered and steered",
        "",
        f"- model: `{loaded.name}`",
        f"- bank: `{bank_name(bank)}`, added after block {bank.layer}, positions: {settings.positions}",
        f"- right side: {caption(bank, settings)}",
        f"- temperature {settings.temperature:g}, top-p {settings.top_p:g}, seed {settings.seed}, "
        f"at most {settings.max_new_tokens} tokens",
    ]
    parts = ["\n".join(head)]
    for name, chat in (("Unsteered", left), ("Steered", right)):
        parts.append(f"## {name}")
        parts += [f"**{'You' if m['role'] == 'user' else 'Model'}:**\n\n{_quoted(m['content'])}" for m in chat]
    return "\n\n".join(parts) + "\n"


def as_code(
    loaded: LoadedModel,
    bank: VectorBank,
    left: Sequence[Message],
    right: Sequence[Message],
    settings: Settings,
    space: str | None = None,
) -> str:
    """Python that prints the last question's two answers again; before a question: for "Hello".

    Args:
        space: the Space's repository where the app runs on one, "" where it is not known; None: on one's own machine.

    Raises:
        PromptError: the question does not fit the model.
    """
    chats = []
    for system, chat in ((settings.system, left), (settings.right_system(), right)):
        past, question = before_last_question(chat)
        try:
            chats.append(fit(loaded, system, past, question or "Hello", settings.max_new_tokens)[0])
        except PromptError as error:
            raise PromptError(f"there is no code for this conversation: {error}") from error
    revision = bank.source.revision if bank.source is not None else None
    pinned = f", revision={revision!r}" if revision else ""
    mix = " + ".join(f"bank.vector({vector}, {scale!r})" for vector, scale in settings.mix)
    sampling = f"{settings.max_new_tokens}, {settings.temperature!r}, {settings.top_p!r}, {settings.seed}"
    made = bank.source is None or not (bank.source.repo or bank.source.folder)
    lines = [
        _install(space),
        *(["# The bank was made here: download it (tab Bank), unpack it, and name its folder below."] if made else []),
        "import torch",
        "",
        "from melbo import VectorBank, load_model",
        "from melbo.steering.generate import Sampling, complete",
        "from melbo.steering.common_random_numbers import with_shared_draws",
        *(["from melbo.steering.random_vectors import control_vectors"] if settings.side == "random" else []),
        "",
        f"model = load_model({loaded.name!r})",
        f"bank = VectorBank.from_pretrained({bank_place(bank, space)!r}{pinned})",
        f"vector = {mix}",
        *_right_side(settings),
        *_messages("unsteered", chats[0]),
        *_messages("steered", chats[1]),
        f"sampling = Sampling({sampling})",
        "model, sampling = with_shared_draws(model, sampling)",
        "rows = torch.stack([torch.zeros_like(vector), vector])",
        f"answers = complete(model, [unsteered, steered], rows, bank.layer, sampling, {settings.positions!r})",
        'print(*answers, sep="\\n---\\n")',
    ]
    return "\n".join(lines) + "\n"


def _messages(name: str, chat: Sequence[Message]) -> list[str]:
    return [f"{name} = [", *(f"    {message!r}," for message in chat), "]"]


def _right_side(settings: Settings) -> list[str]:
    if settings.side == "vector":
        return []
    if settings.side == "prompt":
        return ["vector = torch.zeros_like(vector)  # the instruction alone"]
    drawn = " + ".join(f"drawn[{vector}] * {scale!r}" for vector, scale in settings.mix)
    return [
        "drawn = control_vectors(",
        "    len(bank), bank.base_model.d_model, bank.radius, bank.config.orthogonal, bank.config.seed",
        ")",
        f"random = {drawn}",
        "vector = random * (vector.norm() / random.norm())",
    ]


def _quoted(text: str) -> str:
    """A block quote in which the text stays text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"

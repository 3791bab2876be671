"""Complete many prompts in one batch, each row with a steering vector of its own, whole or streamed."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from melbo.errors import ConfigError, PromptError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode, left_pad
from melbo.runs.settings import Settings, Size, Whole
from melbo.steering.hooks import Positions, steer


@dataclass(frozen=True)
class Sampling(Settings):
    """How tokens are chosen."""

    max_new_tokens: Size = 64
    """Longest answer, in tokens."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """0 is greedy; else from 0.01."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: tokens that make up this share of the probability."""
    seed: Whole = 0
    """Seed of the sampling."""

    def check(self) -> None:
        """What takes more than one range."""
        if 0 < self.temperature < 0.01:
            raise ConfigError(f"temperature is {self.temperature!r}; it must be 0 (greedy) or lie between 0.01 and 10.")


class _Watch(StoppingCriteria):
    """Hands over the new tokens after each step, and stops where the answer is True."""

    def __init__(self, width: int, tell: Callable[[Tensor], bool]) -> None:
        self.width, self.tell = width, tell

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:  # noqa: ARG002
        return torch.full((input_ids.shape[0],), self.tell(input_ids[:, self.width :]), device=input_ids.device)


def complete(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]],
    vectors: Tensor | None = None,
    layer: int = 0,
    sampling: Sampling | None = None,
    positions: Positions = "all",
    batch_size: int = 64,
) -> list[str]:
    """The model's answers.

    Args:
        prompts: conversations; each row of the batch is one.
        vectors: [rows, d_model], row i is added for prompt i at the output of block `layer`; None: unsteered.
        batch_size: rows of one forward pass.

    Raises:
        PromptError, ConfigError: a bad prompt, layer, shape or sampling setting.
    """
    sampling = sampling or Sampling()
    _check_rows(prompts, vectors)
    texts: list[str] = []
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        rows = None if vectors is None else vectors[part]
        texts += decode(loaded, generate_tokens(loaded, prompts[part], sampling, rows, layer, positions))
    return texts


def _check_rows(prompts: Sequence[Sequence[Message]], vectors: Tensor | None) -> None:
    if vectors is not None and (vectors.ndim != 2 or len(vectors) != len(prompts)):
        raise ConfigError(f"vectors have shape {tuple(vectors.shape)}; {len(prompts)} prompts need as many rows.")


def decode(loaded: LoadedModel, new_tokens: Iterable[Tensor]) -> list[str]:
    """Texts of generated tokens, [rows, T] or a list of [T], without a last character that is cut in its middle."""
    return [str(loaded.tokenizer.decode(row, skip_special_tokens=True)).rstrip("\ufffd") for row in new_tokens]


def stream(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]],
    vectors: Tensor | None = None,
    layer: int = 0,
    sampling: Sampling | None = None,
    positions: Positions = "all",
) -> Generator[list[str], None, None]:
    """Like `complete` for one batch, but yields all rows' texts so far after each token.

    Closing the iterator stops generation at the next token.
    """
    _check_rows(prompts, vectors)
    out: queue.Queue[Any] = queue.Queue()
    stop = threading.Event()

    def tell(tokens: Tensor) -> bool:
        out.put(tokens.detach().cpu().clone())
        return stop.is_set()

    def work() -> None:
        try:
            generate_tokens(loaded, prompts, sampling or Sampling(), vectors, layer, positions, tell)
            out.put(None)
        except BaseException as error:  # handed to the consumer's thread
            out.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := out.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield decode(loaded, item)
    finally:
        stop.set()
        thread.join()


def generate_tokens(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]],
    sampling: Sampling,
    vectors: Tensor | None = None,
    layer: int = 0,
    positions: Positions = "all",
    tell: Callable[[Tensor], bool] | None = None,
) -> Tensor:
    """New tokens [rows, T] of one batch. `tell` gets those so far after each step, and stops it by returning True."""
    if not prompts:
        raise PromptError("no prompt was given.")
    ids, mask = left_pad(
        [encode(loaded.tokenizer, p, loaded.context - 1) for p in prompts], loaded.tokenizer.pad_token_id
    )
    width = ids.shape[1]
    steered = torch.zeros(1, loaded.d_model) if vectors is None else vectors
    with (
        torch.inference_mode(),
        steer(loaded, layer, steered, positions, width),
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),  # the caller's random state stays
    ):
        torch.manual_seed(sampling.seed)
        tokens: Tensor = loaded.model.generate(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            generation_config=_generation_config(loaded, sampling, loaded.context - width),
            stopping_criteria=StoppingCriteriaList([] if tell is None else [_Watch(width, tell)]),
        )
    return tokens[:, width:].cpu()


def _generation_config(loaded: LoadedModel, sampling: Sampling, room: int) -> GenerationConfig:
    """Exactly these settings: the checkpoint's own (beams, repetition penalty, top-k) would change what is compared."""
    chosen: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        chosen = {"do_sample": True, "temperature": float(sampling.temperature)}
        chosen |= {"top_p": float(sampling.top_p), "top_k": 0}
    return GenerationConfig(
        max_new_tokens=min(sampling.max_new_tokens, room),
        eos_token_id=loaded.model.generation_config.eos_token_id,
        pad_token_id=loaded.tokenizer.pad_token_id,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_p=None,
        **chosen,
    )

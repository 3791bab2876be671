"""How fast the app is: start, first token, what steering costs, requests per second. `--json FILE` writes the numbers.

1. ready_s: `python app.py`, offline, until its page answers.
2. first_token_ms_p50: from sending a request to /chat of that app to its first text, median.
3. steered_over_unsteered: time of the same two rows streamed with a vector on one, and with none; median of pairs that
   follow one another, so that a busy machine slows both.
4. requests_per_s: short requests to /chat by 1, 8 and 32 clients at once.

`--memory N` sends N requests of every kind instead, failing ones among them, from clients that come and go, and prints
the app's memory (resident set, MB; Linux only) after each tenth of them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from gradio_client import Client  # type: ignore[import-untyped]  # noqa: E402

from melbo.bank.vector_bank import VectorBank  # noqa: E402
from melbo.models.load import load_model  # noqa: E402
from melbo.prompts import chat  # noqa: E402
from melbo.steering.generate import Sampling, stream  # noqa: E402

QUESTION = "How can I bake bread?"
TOKENS = 16
CLIENTS = (1, 8, 32)


@contextmanager
def running(patience: float = 120) -> Iterator[tuple[str, float, int]]:
    """The app in a process of its own: its address, the seconds until its page answered, and its process's number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
    url = f"http://127.0.0.1:{port}/"
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        app = subprocess.Popen([sys.executable, str(ROOT / "app.py")], env=environment, stdout=log, stderr=log)  # noqa: S603
        try:
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).read()
                    break
                except OSError:
                    if app.poll() is not None or time.perf_counter() - start > patience:
                        log.seek(0)
                        raise SystemExit(f"the app did not start:\n{log.read().decode()[-2000:]}") from None
                    time.sleep(0.02)
            yield url, time.perf_counter() - start, app.pid
        finally:
            app.terminate()
            app.wait()


def first_token_ms(client: Client, times: int) -> float:
    """Median over requests of the time to the first text, in milliseconds."""
    found = []
    for i in range(times + 2):
        start = time.perf_counter()
        job = client.submit(QUESTION, [i % 8], [1.0], max_new_tokens=TOKENS, api_name="/chat")
        next(iter(job))
        found.append(1000 * (time.perf_counter() - start))
        job.result()
    return statistics.median(found[2:])  # the first two warm up


def requests_per_s(clients: list[Client], people: int, each: int) -> float:
    """Requests that `people` at once get answered a second."""
    together = threading.Barrier(people + 1)

    def visit(i: int) -> None:
        together.wait()
        for k in range(each):
            clients[i % len(clients)].predict(QUESTION, [(i + k) % 16], [1.0], max_new_tokens=TOKENS, api_name="/chat")

    with ThreadPoolExecutor(people) as pool:
        jobs = [pool.submit(visit, i) for i in range(people)]
        together.wait()
        start = time.perf_counter()
        for job in jobs:
            job.result()
        return people * each / (time.perf_counter() - start)


def steered_over_unsteered(pairs: int) -> float:
    """Median ratio of the times of two rows with and without a vector, the same number of tokens each."""
    bank = VectorBank.load(ROOT / "vectors" / "smollm2-weekend")  # the app's own
    loaded = load_model(bank.base_model.id)
    rows = torch.stack([torch.zeros(loaded.d_model), bank.vector(5, 1.0)])
    prompts = [chat(QUESTION)] * 2

    def seconds_a_token(vectors: torch.Tensor) -> float:
        start = time.perf_counter()
        steps = sum(1 for _ in stream(loaded, prompts, vectors, bank.layer, Sampling(TOKENS)))
        return (time.perf_counter() - start) / steps

    for vectors in (rows, rows * 0):
        seconds_a_token(vectors)
    return statistics.median(seconds_a_token(rows) / seconds_a_token(rows * 0) for _ in range(pairs))


def mixed_request(client: Client, number: int) -> bool:
    """One request, of a kind that its number chooses; whether it succeeded. Every sixth must fail."""
    kinds: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("/chat", [QUESTION, [number % 16], [1.0]], {"max_new_tokens": 4, "seed": number}),
        ("/token_changes", [QUESTION, f"An answer with the number {number}.", number % 16], {}),
        ("/chat", [QUESTION, [9_999]], {}),
        ("/scale_strip", [f"{QUESTION} {number}", number % 16, [-1.0, 1.0]], {}),
        ("/vectors", [], {}),
        ("/discover", [f"{QUESTION} {number}", "random", 4], {}),
    ]
    name, arguments, named = kinds[number % len(kinds)]
    try:
        client.predict(*arguments, **named, api_name=name)
    except Exception as error:  # gradio_client has no common base
        if "vector 9999" not in str(error).lower():
            raise
        return False
    return True


def memory_mb(process: int) -> float:
    """Resident set of a process, in MB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def memory_over(requests: int) -> dict[str, Any]:
    """The app's memory at the start and after each tenth of the requests, in MB."""
    with running() as (url, _, process):
        found, failed = [round(memory_mb(process), 1)], 0
        client = Client(url, verbose=False)
        for number in range(requests):
            if number % 25 == 24:
                client = Client(url, verbose=False)  # another visitor
            failed += not mixed_request(client, number)
            if (number + 1) % max(1, requests // 10) == 0:
                found.append(round(memory_mb(process), 1))
    return {"requests": requests, "failed": failed, "memory_mb": found}


def main() -> None:
    """Measure, print, and write the file that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--requests", type=int, default=32, help="requests of each measurement, at least 32")
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="the app's memory over N requests instead")
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(memory_over(options.memory), indent=2))
        return
    times = max(32, options.requests)
    with running() as (url, ready, _):
        clients = [Client(url, verbose=False) for _ in range(8)]
        first = first_token_ms(clients[0], times)
        rate = {str(people): requests_per_s(clients, people, max(1, times // people)) for people in CLIENTS}
    found: dict[str, Any] = {
        "ready_s": round(ready, 2),
        "first_token_ms_p50": round(first, 1),
        "steered_over_unsteered": round(steered_over_unsteered(times), 3),
        "requests_per_s": {people: round(value, 2) for people, value in rate.items()},
    }
    print(json.dumps(found, indent=2))
    if options.json:
        partial = options.json.with_name(f".{options.json.name}.partial")
        partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        partial.replace(options.json)


if __name__ == "__main__":
    main()

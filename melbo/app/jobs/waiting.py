"""A visitor's place among those who wait for the model: shown in words, and bounded so that nobody holds many.

gradio tells each waiting page its place, which a component with show_progress="minimal" shows as "queue: 3/5 |".
static/js/page.js turns that into "3 before you", the request that runs being the first of them, and tells it to screen
readers once. gradio bounds the queue as a whole only, so `bound_places` refuses a request before it joins.
"""

from typing import Any

import gradio as gr

PLACES = 8
"""Requests that one page may have waiting; a ninth is refused until one has started."""
SHARE = 0.5
"""Share of the queue that one address may fill: many people can sit behind one."""


def waiting(elem_id: str) -> gr.HTML:
    """Room for the place, as high as a button: the last in a row of buttons."""
    return gr.HTML("", elem_id=elem_id, elem_classes="waiting", padding=False)


def bound_places(demo: gr.Blocks, each: int = PLACES) -> None:
    """Refuse a request of a page that has `each` waiting, or of an address that has SHARE of the queue. Call once,
    after `demo.queue(max_size=...)`.
    """
    queue: Any = demo._queue
    push, most = queue.push, max(each, int(SHARE * (queue.max_size or each / SHARE)))

    async def bounded(body: Any, request: Any, username: str | None) -> Any:
        waits = [event for line in queue.event_queue_per_concurrency_id.values() for event in line.queue]
        own = sum(event.session_hash == body.session_hash for event in waits)
        near = sum(address_of(event.request) == address_of(request) for event in waits)
        if own >= each or near >= most:
            count = own if own >= each else near
            return False, f"{count} requests of yours are waiting already; try again when one has ended.", "error"
        return await push(body=body, request=request, username=username)

    queue.push = bounded


def address_of(request: Any) -> str:
    """Where a request comes from: what the nearest proxy says, or else the connection's own address."""
    forwarded = request.headers.get("x-forwarded-for", "")
    return forwarded.rpartition(",")[2].strip() or (request.client.host if request.client else "")

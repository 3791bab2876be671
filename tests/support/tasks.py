"""Shared by tests: save_tasks."""

from __future__ import annotations

import json
from pathlib import Path

from melbo.elicitation.tasks.load import TaskSet


def save_tasks(tasks: TaskSet, path: Path) -> Path:
    """Write a task file; `load_tasks` reads the same tasks from it."""
    lines = []
    for split in ("train", "test"):
        for task in getattr(tasks, split):
            check = task.check
            row = {"messages": list(task.messages), "check": check.kind, "answer": check.value}
            row |= {"tolerance": check.tolerance, "options": check.options, "split": split, "solution": task.solution}
            lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
    return path

"""What claims have in common: the result that is written, and measurements that are kept between runs."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from longtake.pipelines.records import machine, versions
from longtake.video import write_bytes


def kept(path: Path, measure: Callable[[], Any]) -> Any:
    """What `measure` returns, a value of JSON, from a file where there is one; so an interrupted claim goes on.

    The file says on which machine it was measured, see `machines`.
    """
    if not path.exists():
        value = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps({"value": value, "machine": machine(), "versions": versions()}, indent=1).encode())
    return json.loads(path.read_text())["value"]


def machines(paths: list[Path]) -> list[dict[str, Any]]:
    """The machines on which files of `kept` were measured, each once."""
    found: list[dict[str, Any]] = []
    for path in paths:
        one = json.loads(path.read_text())["machine"]
        found += [one] if one not in found else []
    return found


def write_result(out: Path, result: dict[str, Any]) -> None:
    """Write a claim's result with this machine, the versions and the date; a list of numbers is one line."""
    facts = {"machine": machine(), "versions": versions(), "date": datetime.now(UTC).date().isoformat()}
    text = re.sub(
        r"\[[\s\d.,e+-]*\]",
        lambda found: "[" + ", ".join(found[0][1:-1].replace(",", " ").split()) + "]",
        json.dumps({**result, **facts}, indent=1),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n")
    print("written:", out)

"""Plain data: quartiles, receipts of several runs as one, and what the table prints of them."""

import json
import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from longtake.comparison.report import Spread, summed_receipts
from longtake.comparison.table import decibels, lines, memory, quartiles, seconds, table, times


def test_quartiles_are_those_of_numpy():
    values = [0.3, 1.7, 0.9, 4.0, 2.2, 0.1, 3.3]
    found = Spread.of(values)
    assert (found.low, found.median, found.high) == pytest.approx(np.quantile(values, (0.25, 0.5, 0.75)))
    assert Spread.of([2.5]) == Spread(2.5, 2.5, 2.5)


def receipt(skipped, done, state, acted=True):
    return {
        "method": "m",
        "config": {"interval": 2},
        "sites": 4,
        "observed": 1,
        "branches": {"cond": {"computed": 10, "skipped": skipped, "changed": 0}},
        "macs_done": done,
        "macs_dense": 100 if done else None,
        "state_bytes": state,
        "kernels": {"k": 2},
        "notes": {"why": "x"},
        "acted": acted,
    }


def test_receipts_of_several_runs_are_summed():
    (found,) = summed_receipts([[receipt(3, 70, 8)], [receipt(0, 100, 16, acted=False)]])
    assert found["branches"] == {"cond": {"computed": 20, "skipped": 3, "changed": 0}}
    assert (found["macs_done"], found["macs_dense"], found["state_bytes"]) == (170, 200, 16)
    assert (found["kernels"], found["observed"], found["sites"]) == ({"k": 4}, 2, 4)
    assert (found["runs"], found["idle_runs"], found["acted"]) == (2, 1, True)


def test_work_that_is_unknown_in_one_run_is_unknown_in_all():
    (found,) = summed_receipts([[receipt(3, 70, 8)], [receipt(3, None, 8)]])
    assert found["macs_done"] is None and found["macs_dense"] is None


def test_numbers_are_printed_with_units_and_nothing_is_printed_for_none():
    assert (times(2.314), times(None)) == ("2.31×", "–")
    assert (memory(1_572_864_000), memory(2**31)) == ("1.46 GiB", "2.00 GiB") and memory(5 * 2**20) == "5 MiB"
    assert (decibels(31.236), decibels(100.0), decibels(None)) == ("31.24", "identical", "–")
    assert (seconds(0.0123), seconds(1.234), seconds(12.34)) == ("0.012", "1.23", "12.3")
    assert quartiles(Spread(0.11, 0.082, 0.14)) == "0.08–0.14"


def test_the_table_has_dense_first_and_says_what_failed(compared):
    report, _ = compared
    failed = replace(report.rows[1], error="out of memory")
    report = replace(report, rows=(report.rows[0], failed, *report.rows[2:]))
    out = StringIO()
    Console(file=out, width=200).print(table(report))
    printed = out.getvalue().splitlines()
    assert printed[0].startswith("stack") and printed[1].startswith("dense") and " 1.00× " in printed[1]
    assert re.match(r"taylorseer:interval=2 +failed", printed[2])
    assert "identical" in printed[3]
    text = "\n".join(lines(report))
    assert "2 prompts (given) × 2 seeds = 4 clips a row, 5 frames of 24×16, 6 steps, guidance 4" in text
    assert "taylorseer:interval=2 failed: out of memory" in text and "read-back and FVD[scenes-3d] are left out" in text


def test_the_record_is_json_that_holds_every_row(compared):
    report, folder = compared
    told = json.loads((folder / "report.json").read_text())
    assert [row["name"] for row in told["rows"]] == [row.name for row in report.rows]
    assert told["weights"] == report.weights and len(told["weights"]) == 64
    assert {"longtake", "torch", "diffusers"} <= told["versions"].keys() and told["machine"]["cores"]
    assert told["rows"][1]["receipts"][0]["config"]["interval"] == 2

"""How long exact questions take over a large fleet's policy. Run by `make bench`; one JSON object on stdout."""

import json
import statistics
import time

from bench.fleet_policy import fleet_snapshot
from ringfence.policy.insight.matrix import draw_matrix
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.insight.services import parse_services

GROUPS, INSTANCES = 1_000, 10_000
QUESTION_BOUND_S, MATRIX_BOUND_S = 0.05, 5.0
QUESTIONS = {
    "who can reach a role on tcp/5432": ("any", "g500", "tcp/5432"),
    "who can reach a role": ("any", "g501", None),
    "who can reach a shared group on tcp/22": ("any", "g3", "tcp/22"),
    "one instance to another": ("i10", "i11", None),
    "what can the internet reach on tcp/443": ("internet", "any", "tcp/443"),
    "what can the internet reach": ("internet", "any", None),
    "what can a role reach": ("g502", "any", None),
    "a role and the internet": ("g503", "internet", None),
}
ROUNDS = 5


def _timed(run):
    began_s = time.perf_counter()
    found = run()
    return time.perf_counter() - began_s, found


def test_questions_and_the_matrix_of_a_large_fleet_come_in_time():
    snapshot = fleet_snapshot(GROUPS, INSTANCES)
    made_s, reachability = _timed(lambda: Reachability(snapshot))
    found = {}
    for name, (source, destination, services) in QUESTIONS.items():
        wanted = parse_services(services) if services else None
        runs = [_timed(lambda ends=(source, destination), w=wanted: reachability.ask(*ends, w)) for _ in range(ROUNDS)]
        found[name] = {
            "median_ms": round(statistics.median(took for took, _ in runs) * 1000, 1),
            "first_ms": round(runs[0][0] * 1000, 1),
            "parts": len(runs[0][1].parts),
        }
    matrix_s, matrix = _timed(lambda: draw_matrix(reachability.grants))
    cells = sum(rows.bit_count() for column in matrix.columns for rows, _ in column)
    print(  # noqa: T201  the bench's result
        json.dumps(
            {
                "groups": GROUPS,
                "rules": sum(len(group.rules) for group in snapshot.groups.values()),
                "instances": INSTANCES,
                "classes": len(reachability.population.classes),
                "making_ready_s": round(made_s, 2),
                "questions": found,
                "matrix_s": round(matrix_s, 2),
                "matrix_cells": cells,
                "not_met": [name for name, one in found.items() if one["median_ms"] > QUESTION_BOUND_S * 1000]
                + ["matrix"] * (matrix_s > MATRIX_BOUND_S),
            },
            indent=2,
        )
    )
    assert len(matrix.groups) == GROUPS
    assert cells

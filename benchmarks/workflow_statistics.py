"""Measures how much of generated workflows' prompts is fixed, and how well their order is known.

python benchmarks/workflow_statistics.py [--sessions N] [--output DIR]

For each workflow: calls a session, anchor ratio and predictability, over sessions of seed 0, as
`docs/generator.md` has them. Writes `workflow_statistics.json` and `workflow_statistics.md`.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from holdfast.report.manifest import run_manifest
from holdfast.traces.digest import sessions_digest
from holdfast.workload.workflows.kinds import WORKFLOWS
from holdfast.workload.workflows.sessions import iterate_workflow
from holdfast.workload.workflows.statistics import WorkflowStatistics


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    digests: dict[str, str] = {}
    for name, workflow in WORKFLOWS.items():
        sessions = list(islice(iterate_workflow(workflow, 0, name=name), options.sessions))
        digests[name] = sessions_digest(sessions)
        found = WorkflowStatistics.of(sessions)
        rows.append(
            {
                "workflow": name,
                "calls a session": round(found.num_calls / len(sessions)),
                "anchor ratio": f"{found.anchor_ratio:.2f}",
                "predictability": f"{found.predictability:.2f}",
            }
        )
    manifest = run_manifest(arguments={"sessions": options.sessions}, runs=(), digests=digests)
    manifest["seeds"] = [0]
    options.output.mkdir(parents=True, exist_ok=True)
    document = {"manifest": manifest, "rows": rows}
    path = options.output / "workflow_statistics.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(v) for v in r.values()] for r in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (options.output / "workflow_statistics.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()

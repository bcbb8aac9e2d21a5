"""README.md and docs/results.md tell the truth: their tables are those of the result files, the
code runs, the links lead somewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_readme_can_be_finished():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_the_tables_are_those_of_the_result_files():
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "tables.py", "--check"])
    assert done.returncode == 0, "run: python benchmarks/tables.py"


def test_the_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert blocks
    for block in blocks:
        subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", block], check=True)


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "docs/results.md", ROOT / "benchmarks/README.md"):
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), link


def test_results_say_where_they_come_from():
    demo = json.loads((ROOT / "benchmarks/results/demo/metrics.json").read_text())
    assert demo["dataset"] == {"name": "fashion-mnist", "train": 60000, "test": 10000}
    assert all(run["versions"]["mxnet"] and run["machine"]["cpu"] for run in demo["runs"])
    bench = json.loads((ROOT / "benchmarks/results/bench.json").read_text())
    assert bench["settings"]["cpu"] and bench["command"].startswith("gluon-bn bench")

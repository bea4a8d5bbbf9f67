"""What `drift-monitor check` costs, against a bare read of the same file and against Evidently's DataDriftPreset.

    python benchmarks/check_cost.py [--quick] [--json] [--rows 1000000 ...] [--edges 1000 ...]

One day of a log (40 numbers, 10 texts, an event time) in Parquet (zstd, row groups of 131,072), and a reference of
200,000 rows over two weeks. Everything runs in a process of its own, imports included; the processor time is what
counts, since checks share a machine with the model's service. The window ends with the day, so the classifier on
whole rows looks too, which it does once a day; the other checks of a day cost what one without it does. A check of
1,000 rows of the same columns is beside them: what is beyond that is what the rows cost. Evidently runs once, on
the fewest rows.

The goals, for each number of rows and of edges: at most 2 times the bare read, at least 75 times less than
Evidently, and under 600 MB; and with two threads, without the classifier, a check ends within 1.2 times the read's
processor time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUMBERS, TEXTS = 40, 10
DAY = 86_400_000_000
START = np.datetime64("2024-03-01", "us").astype(np.int64)
DAYS = 14
FULL_ROWS, QUICK_ROWS = (1_000_000, 5_000_000), (100_000,)
FULL_EDGES, QUICK_EDGES = (1000, 20, 4000), (1000,)
AT_MOST_READS, AT_LEAST_LESS_THAN_EVIDENTLY, AT_MOST_MB, AT_MOST_WALL = 2.0, 75.0, 600.0, 1.2
TWO = "the same, two threads"

CONFIG = """\
state: {folder}/state-{edges}-{file}
monitors:
  bench:
    reference: {folder}/reference-{edges}
    source: {{type: files, path: "{folder}/{file}", timestamp: time}}
    schedule: {{every: 1d}}
    window: {{length: 1d}}
    columns: {{edges: {edges}}}
    alarm: {{multivariate: [{multivariate}]}}
    executor: {{type: threads, workers: {workers}}}
    # the log is far larger than the sample of it that the model was trained on
    quality: {{disable: [volume]}}
"""


def log(rng: np.random.Generator, rows: int, start: np.int64, days: int) -> pa.Table:
    """Rows of one distribution, in the order of their times."""
    columns: dict[str, pa.Array] = {
        "time": pa.array(np.sort(rng.integers(start, start + days * DAY, rows))).cast(pa.timestamp("us", "UTC"))
    }
    for i in range(NUMBERS):
        draws = (
            lambda: rng.normal(size=rows),
            lambda: rng.lognormal(size=rows),
            lambda: rng.gamma(2.0, size=rows),
            lambda: rng.integers(0, 1000, rows).astype(np.float64),
        )
        columns[f"number_{i}"] = pa.array(draws[i % 4]())
    for i in range(TEXTS):
        shares = 1 / np.arange(1, 5 * (i + 1) + 1)
        codes = rng.choice(len(shares), rows, p=shares / shares.sum()).astype(np.int32)
        names = pa.array([f"category {k}" for k in range(len(shares))])
        columns[f"text_{i}"] = pa.DictionaryArray.from_arrays(pa.array(codes), names).cast(pa.string())
    return pa.table(columns)


def write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", row_group_size=131_072)


def prepare(folder: Path, rows: int, reference_rows: int, edges: Sequence[int]) -> None:
    """Write the files and build the references."""
    rng = np.random.default_rng(common.SEED)
    write(log(rng, reference_rows, START - DAYS * DAY, DAYS), folder / "training.parquet")
    live = log(rng, rows, START, 1)
    write(live, folder / "live.parquet")
    write(live.take(pa.array(np.arange(0, rows, rows // 1000))), folder / "small.parquet")
    for each in edges:
        for name, file, multivariate, workers in (
            ("live", "live", "pairs, rows", 1),
            ("small", "small", "pairs, rows", 1),
            ("plain", "live", "pairs", 1),
            ("threads", "live", "pairs", 2),
        ):
            facts = {"folder": folder, "file": f"{file}.parquet", "edges": each}
            facts |= {"multivariate": multivariate, "workers": workers}
            (folder / f"{name}-{each}.yaml").write_text(CONFIG.format(**facts))
        built = folder / f"reference-{each}"
        build = [
            "reference",
            "build",
            folder / "training.parquet",
            built,
            "--config",
            folder / f"live-{each}.yaml",
        ]
        subprocess.run([*program(), *map(str, build)], check=True, stdout=subprocess.DEVNULL)


def program() -> list[str]:
    return [sys.executable, "-m", "drift_monitor"]


def check(folder: Path, name: str) -> list[str]:
    window = ["--window", "2024-03-01/2024-03-02", "--json"]
    return [*program(), "check", "bench", "--config", str(folder / f"{name}.yaml"), *window]


def read(folder: Path) -> None:
    """The bare read: batches of all columns, texts as dictionaries."""
    texts = [f"text_{i}" for i in range(TEXTS)]
    file = pq.ParquetFile(folder / "live.parquet", read_dictionary=texts, pre_buffer=False)
    rows = sum(batch.num_rows for batch in file.iter_batches(131_072, use_threads=False))
    assert rows == file.metadata.num_rows


def evidently(folder: Path) -> None:
    """Evidently's preset on the same two files."""
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415 - large, and only in its own process
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    definition = DataDefinition(
        numerical_columns=[f"number_{i}" for i in range(NUMBERS)],
        categorical_columns=[f"text_{i}" for i in range(TEXTS)],
    )
    sides = [
        Dataset.from_pandas(pq.read_table(folder / f"{name}.parquet").to_pandas(), data_definition=definition)
        for name in ("live", "training")
    ]
    Report([DataDriftPreset()]).run(*sides)


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", help="of the log")
    parser.add_argument("--edges", type=int, nargs="+", help="of a number's cells")
    parser.add_argument("--without-evidently", action="store_true", help="leave out the slow comparison")
    parser.add_argument("--child", choices=["prepare", "read", "evidently"], help="used by the benchmark itself")
    parser.add_argument("--folder", type=Path, help="used by the benchmark itself")
    options = parser.parse_args()
    sizes = options.rows or (QUICK_ROWS if options.quick else FULL_ROWS)
    edges = options.edges or (QUICK_EDGES if options.quick else FULL_EDGES)
    reference_rows = 20_000 if options.quick else 200_000
    if options.child == "prepare":
        prepare(options.folder, sizes[0], reference_rows, edges)
        return 0
    if options.child:
        {"read": read, "evidently": evidently}[options.child](options.folder)
        return 0
    found: dict[int, dict[str, list[common.Cost]]] = {}
    goals: dict[str, bool] = {}
    for rows in sizes:
        beside = rows == min(sizes) and not options.without_evidently
        found[rows] = measured(rows, edges, options.rounds, quick=options.quick, beside=beside)
        if not options.quick:  # for small data the import of the libraries is most of the cost
            goals |= met(rows, edges, found[rows])
        if not options.json:
            show(rows, reference_rows, edges, found[rows])
    if options.json:
        facts = {"seed": common.SEED, "reference_rows": reference_rows, "goals": goals}
        each = {str(rows): json.loads(common.as_json(costs))["costs"] for rows, costs in found.items()}
        print(json.dumps(facts | {"costs": each}, indent=2))
    else:
        print(common.told(goals))
    return 0 if all(goals.values()) else 1


def measured(
    rows: int, edges: Sequence[int], rounds: int, *, quick: bool, beside: bool
) -> dict[str, list[common.Cost]]:
    """Run everything on so many rows."""
    costs: dict[str, list[common.Cost]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="check-cost-") as temporary:
        folder = Path(temporary)
        environment = common.environment(folder)
        child = [
            sys.executable,
            __file__,
            "--folder",
            str(folder),
            "--rows",
            str(rows),
            "--edges",
            *map(str, edges),
        ]
        child += [*(["--quick"] if quick else []), "--child"]
        # not in this process: what a parent once held counts as the peak of its children
        common.measure([*child, "prepare"], environment)
        commands = {"read": [*child, "read"]}
        commands |= {f"check, {each} edges": check(folder, f"live-{each}") for each in edges}
        commands[f"the same, {edges[0]}, no classifier"] = check(folder, f"plain-{edges[0]}")
        commands[TWO] = check(folder, f"threads-{edges[0]}")
        commands["check of 1000 rows"] = check(folder, f"small-{edges[0]}")
        for command in commands.values():  # compiles modules, fills caches, as a daemon's second check finds them
            common.measure(command, environment)
        for _ in range(rounds):
            for name, command in commands.items():
                for kept in folder.glob("state-*/buckets"):  # else no row would be read again
                    shutil.rmtree(kept)
                costs[name].append(common.measure(command, environment))
        if beside:
            costs["evidently"].append(common.measure([*child, "evidently"], environment))
    return costs


def met(rows: int, edges: Sequence[int], costs: Mapping[str, Sequence[common.Cost]]) -> dict[str, bool]:
    """The goals in words, and whether they are met."""
    medians = {name: common.median(runs) for name, runs in costs.items()}
    goals = {}
    for each in edges:
        cost, about = medians[f"check, {each} edges"], f"{rows:,} rows, {each} edges:"
        reads = cost.cpu / medians["read"].cpu
        goals[f"{about} {reads:.2f} times the read (at most {AT_MOST_READS:g})"] = reads <= AT_MOST_READS
        goals[f"{about} {cost.peak:.0f} MB at the peak (under {AT_MOST_MB:g})"] = cost.peak < AT_MOST_MB
        if each == edges[0]:
            wall = medians[TWO].wall / medians["read"].cpu
            sentence = f"{about} two threads take {wall:.2f} times the read's CPU time (at most {AT_MOST_WALL:g})"
            goals[sentence] = wall <= AT_MOST_WALL
        if "evidently" in medians:
            less = medians["evidently"].cpu / cost.cpu
            sentence = f"{about} {less:.0f} times less than Evidently (at least {AT_LEAST_LESS_THAN_EVIDENTLY:g})"
            goals[sentence] = less >= AT_LEAST_LESS_THAN_EVIDENTLY
    return goals


def show(rows: int, reference_rows: int, edges: Sequence[int], costs: Mapping[str, Sequence[common.Cost]]) -> None:
    """The table of one number of rows."""
    print(
        f"{rows:,} rows x {NUMBERS + TEXTS} columns; reference of {reference_rows:,} rows; seed {common.SEED}\n\n"
        f"{common.table(costs, 'read')}\n"
    )
    own, few, read_once = (
        common.median(costs[name]).cpu for name in (f"check, {edges[0]} edges", "check of 1000 rows", "read")
    )
    print(f"beyond a check of 1000 rows: {(own - few) / read_once:.2f} times the read\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())

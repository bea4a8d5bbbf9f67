"""Training rows and a window -> weights: sample, fit, stream, judge, write. Heavy: imported in the work's process.

The training rows are read twice, batch by batch: once for a sample on which everything is fitted, once to give
each row its weight. Memory depends on the samples, not on the number of rows.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from drift_monitor.actions.reweight import MANIFEST, PICTURE, USE, WEIGHTS, ReweightError, ReweightRequest
from drift_monitor.actions.training_rows import decoded, typed
from drift_monitor.actions.weights_findings import (
    balance_of,
    diagnose,
    judge_again,
    outside_of,
    refusals,
    told_raking,
)
from drift_monitor.actions.weights_gate import judge_gate
from drift_monitor.actions.weights_manifest import File, Inputs, WeightsManifest
from drift_monitor.actions.weights_method import Sides, Weigher, choose
from drift_monitor.actions.weights_picture import draw
from drift_monitor.actions.weights_rows import TrainingRows
from drift_monitor.core.arrow import as_arrow
from drift_monitor.core.classifier import Encoding
from drift_monitor.core.design import Design
from drift_monitor.core.errors import ConfigError
from drift_monitor.core.fold import accepts
from drift_monitor.core.profile import Spec
from drift_monitor.core.types import CheckResult, Kind
from drift_monitor.core.weights import Sums, differences
from drift_monitor.core.weights_model import FEWEST
from drift_monitor.reference import Reference
from drift_monitor.reference.features import kind_of
from drift_monitor.reference.version import hash_file
from drift_monitor.sources import SOURCES
from drift_monitor.sources.sample import hash_rows, sample_rows

TRAINING_ROWS: Final = 100_000
"""Training rows that the method is fitted on at most."""
_SLAB: Final = 1 << 15  # rows weighted at once
_GROUP: Final = 1 << 18  # rows of a row group of the weights
_NUMBERS: Final = 20_000_000  # that a sample of either side holds at most, so that wide tables fit in memory
_FEWEST_SAMPLED: Final = 10_000  # whatever their width
_STEPS: Final = 4  # besides the splits, which are read twice

Progress = Callable[[int, int], None]


def make_weights(
    request: ReweightRequest,
    reference: Reference,
    specs: Sequence[Spec],
    training: Path,
    result: CheckResult,
    packages: dict[str, str],
    progress: Progress | None = None,
) -> WeightsManifest:
    """Make weights and all that goes with them.

    Args:
        request: what for, and where to write.
        reference: of the monitor.
        specs: of the columns that it watches.
        training: the file of the training rows.
        result: of a check of the window that could be judged and is not broken.
        packages: versions to be told.
        progress: called with (steps done, steps in all).

    Raises:
        DriftMonitorError: something cannot be read, or a setting does not fit; nothing is written.
        OSError: something cannot be written.
    """
    temporary_folder = tempfile.TemporaryDirectory(prefix=".weighting-", dir=request.output)
    # on one thread: sums in another order would not give the same bytes
    with temporary_folder as temporary, threadpool_limits(1):
        return _Job(request, reference, specs, result, Path(temporary), progress).run(training, packages)


class _Job:
    """Weights under way."""

    def __init__(
        self,
        request: ReweightRequest,
        reference: Reference,
        specs: Sequence[Spec],
        result: CheckResult,
        folder: Path,
        progress: Progress | None,
    ) -> None:
        self._request, self._reference, self._specs, self._result = request, reference, specs, result
        self._folder, self._progress = folder, progress
        self._step, self._steps = 0, 0

    def _done(self) -> None:
        self._step += 1
        if self._progress is not None:
            self._progress(self._step, self._steps)

    def run(self, training: Path, packages: dict[str, str]) -> WeightsManifest:
        """Sample, fit, stream, judge, write."""
        request, monitor = self._request, self._request.monitor
        how, label = monitor.reweight, monitor.columns.label
        rows = TrainingRows.open(training, monitor.columns, monitor.source.timezone, self._folder)
        self._steps = 2 * len(rows.splits) + _STEPS
        sides, watched, left_out = self._sides(rows)
        self._done()
        design = Design.fit(sides.encoding, sides.known, sides.now)
        live = Sums.of(design, sides.now)
        weigher = choose(request, sides, design, live, self._result)
        weights = weigher.weights(sides.known, sides.numbers)
        self._done()
        row_id = monitor.columns.id if monitor.columns.id in rows.schema.names else None
        sums = _stream(rows, weigher, design, row_id, self._folder / WEIGHTS, self._done)
        found = differences(design, sums, live)
        gate, changed = judge_gate(sides, design, weights, label, how.learner, request.name, how.seed)
        self._done()
        diagnostics = diagnose(weigher, sums, found, outside_of(sides, self._reference.profile), weights)
        refused = refusals(diagnostics, found, weigher, changed)
        balance = balance_of(found)
        picture = draw(request.name, sides, weights, balance)
        (self._folder / PICTURE).write_text(picture, "utf-8")
        (self._folder / USE).write_text(how_to_use(rows.given, row_id, label), "utf-8")
        manifest = WeightsManifest(
            monitor=request.name,
            model=" ".join(part for part in (monitor.model.name, monitor.model.version) if part),
            verdict=self._result.verdict,
            verdict_reason=self._result.reason,
            method=weigher.method,
            method_why=weigher.why,
            mix=how.mix,
            seed=how.seed,
            inputs=self._inputs(rows, sides, row_id),
            features=sides.encoding.names,
            left_out=left_out,
            diagnostics=diagnostics,
            balance=balance,
            raked=None if weigher.raking is None else told_raking(weigher.raking),
            gate=gate,
            again=judge_again(monitor.alarm, watched, sides, weights),
            refused=refused,
            adopt=gate.adopt and not refused,
            why="; ".join(refused) if refused else gate.why,
            files=tuple(_file(self._folder / name) for name in (WEIGHTS, PICTURE, USE)),
            packages=packages,
        )
        write_manifest(request.output, manifest, self._folder)
        self._done()
        return manifest

    def _sides(self, rows: TrainingRows) -> tuple[Sides, list[Spec], dict[str, str]]:
        """Samples of both sides, the watched columns that both have, and those that weights do not depend on."""
        how, label = self._request.monitor.reweight, self._request.monitor.columns.label
        live = _live(self._request, self._specs, rows.schema)
        usable, left_out = _usable(self._specs, rows.schema, live.schema)
        watched = [s for s in self._specs if s.name in rows.schema.names and s.name in live.column_names]
        names = [spec.name for spec in watched] + ([label] if label in rows.schema.names and label else [])
        names = list(dict.fromkeys(names))
        training, numbers = rows.sample(names, _most(TRAINING_ROWS, len(names)), how.seed, self._done)
        if training.num_rows < FEWEST:
            raise ReweightError(f"the training file has {training.num_rows} rows: {FEWEST} are needed to weigh")
        encoding = Encoding(usable)
        sides = Sides(encoding, training, live, numbers, encoding.matrix(training), encoding.matrix(live))
        return sides, watched, left_out

    def _inputs(self, rows: TrainingRows, sides: Sides, row_id: str | None) -> Inputs:
        live, label = sides.live, self._request.monitor.columns.label
        return Inputs(
            reference=self._reference.manifest.version,
            reference_sha256=self._reference.manifest.sha256,
            training=rows.given,
            row_id=row_id or "",
            training_sample=sides.training.num_rows,
            window=self._request.window,
            live_rows=self._result.rows,
            live_sample=live.num_rows,
            live_sha256=_content(live),
            labelled=None if label not in live.column_names else live.num_rows - live[label].null_count,
        )


def write_manifest(output: Path, manifest: WeightsManifest, folder: Path) -> None:
    """Put finished files in place, the manifest last; what was there before goes.

    Args:
        output: the folder of the weights.
        manifest: names the files.
        folder: where they are.
    """
    for name in (MANIFEST, WEIGHTS, PICTURE, USE):
        (output / name).unlink(missing_ok=True)
    for file in manifest.files:
        (folder / file.name).replace(output / file.name)
    temporary = output / f".{MANIFEST}"
    temporary.write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    temporary.replace(output / MANIFEST)


# -- both sides ------------------------------------------------------------------------------------------


def _most(asked: int, columns: int) -> int:
    """Rows of a sample."""
    return min(asked, max(_FEWEST_SAMPLED, _NUMBERS // max(columns, 1)))


def _live(request: ReweightRequest, specs: Sequence[Spec], training: pa.Schema) -> pa.Table:
    """A sample of the window's rows: the watched columns, and the label where it is there and fits."""
    monitor, label = request.monitor, request.monitor.columns.label
    kinds: dict[str, Kind] = {spec.name: spec.kind for spec in specs}
    if label is not None and label in training.names:
        kind = kind_of(training.field(label).type)
        kinds |= {} if kind is None else {label: kind}
    source = SOURCES[monitor.source.type](monitor.source, kinds)
    wanted = [spec.name for spec in specs] + ([label] if label in kinds and label is not None else [])
    there = source.columns(request.window, wanted)
    names = [name for name in dict.fromkeys(wanted) if name in there.names]
    if not names:
        raise ReweightError(f"the live rows of {request.name} have none of the reference's features")
    live = sample_rows(
        source,
        request.window,
        names,
        _most(monitor.reweight.live_rows, len(names)),
        timestamp=monitor.source.timestamp,
        seed=monitor.reweight.seed,
    )
    if live.num_rows < FEWEST:
        raise ReweightError(
            f"the window of {request.name} has {live.num_rows} rows: {FEWEST} are needed to weigh by"
        )
    if label in live.column_names:
        at = live.column_names.index(label)
        try:
            column = live.column(at).combine_chunks()
            column = typed(column, training.field(label).type, monitor.source.timezone)
        except (pa.ArrowException, ValueError):
            return live.remove_column(at)  # labels of another kind say nothing about those of the training rows
        live = live.set_column(at, label, column)
    return live


def _usable(
    specs: Sequence[Spec], training: pa.Schema, live: pa.Schema
) -> tuple[tuple[Spec, ...], dict[str, str]]:
    """The features that weights may depend on, and why the others are left out.

    Raises:
        ConfigError: none is left.
    """
    left_out: dict[str, str] = {}
    usable = []
    for spec in specs:
        if spec.role == "prediction":
            left_out[spec.name] = "the model's output: it looks better on rows that the model was trained on"
        elif spec.kind == "datetime":
            left_out[spec.name] = "a time tells any two periods apart, whatever else they have in common"
        elif spec.name not in training.names:
            left_out[spec.name] = "not in the training file"
        elif not accepts(spec.kind, training.field(spec.name).type):
            left_out[spec.name] = (
                f"{training.field(spec.name).type} in the training file, which cannot be read as {spec.kind}"
            )
        elif spec.name not in live.names:
            left_out[spec.name] = "not in the live rows"
        else:
            usable.append(spec)
    if not usable:
        why = "; ".join(f"{name!r}: {reason}" for name, reason in list(left_out.items())[:5])
        raise ConfigError([f"no feature is left that weights could depend on ({why})"])
    return tuple(usable), left_out


def _stream(
    rows: TrainingRows,
    weigher: Weigher,
    design: Design,
    row_id: str | None,
    path: Path,
    done: Callable[[], None],
) -> Sums:
    """Give every training row its weight; what is written is in the order of the rows."""
    encoding = design.encoding
    kind = pa.int64() if row_id is None else rows.schema.field(row_id).type
    schema = pa.schema([("row_id", kind), ("weight", pa.float64())])
    columns = list(dict.fromkeys([*encoding.names, *([] if row_id is None else [row_id])]))
    sums = Sums.of(design, np.empty((0, len(encoding.specs))), cap=1 / weigher.mix)
    waiting = schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for begin, whole in rows.batches(columns, done):
            for offset in range(0, whole.num_rows, _SLAB):
                batch = whole.slice(offset, _SLAB)
                numbers = np.arange(begin + offset, begin + offset + batch.num_rows)
                matrix = encoding.matrix(pa.Table.from_batches([batch]))
                weights = weigher.weights(matrix, numbers)
                sums = sums.merge(Sums.of(design, matrix, weights, cap=1 / weigher.mix))
                ids = as_arrow(numbers) if row_id is None else decoded(batch.column(row_id)).cast(kind)
                made = pa.Table.from_arrays([ids, as_arrow(weights)], schema=schema)
                waiting = pa.concat_tables([waiting, made])
                # whole groups, so that the bytes do not depend on the batches in which the rows came
                while waiting.num_rows >= _GROUP:
                    writer.write_table(waiting.slice(0, _GROUP).combine_chunks())
                    waiting = waiting.slice(_GROUP)
        if waiting.num_rows:
            writer.write_table(waiting.combine_chunks())
    return sums


def _content(live: pa.Table) -> str:
    """A hash of the sampled rows, whatever files and batches they came in."""
    digest = hashlib.sha256(",".join(live.column_names).encode("utf-8", "backslashreplace"))
    for batch in live.combine_chunks().to_batches():
        digest.update(hash_rows(batch, live.column_names, 0).astype("<u8").tobytes())
    return digest.hexdigest()


def _file(path: Path) -> File:
    found = hash_file(path)
    return File(name=path.name, bytes=found.bytes, sha256=found.sha256)


def how_to_use(training: Sequence[File], row_id: str | None, label: str | None) -> str:
    """Three lines of Python."""
    merged = (
        'rows = training.assign(weight=weights["weight"].to_numpy())  # the same rows in the same order'
        if row_id is None
        else f'rows = training.merge(weights, left_on={row_id!r}, right_on="row_id", validate="1:1")'
    )
    names = ", ".join(file.name for file in training[:3]) + (", ..." if len(training) > 3 else "")
    return (
        f"# `training`: the rows of {names!r}; `features`: the columns of your model; pd: pandas\n"
        f'weights = pd.read_parquet("{WEIGHTS}")\n'
        f"{merged}\n"
        f'model.fit(rows[features], rows[{label or "label"!r}], sample_weight=rows["weight"])\n'
    )

"""A new version of the training set: `python -m drift_monitor.service.refreshing`, and what the command runs.

The child reads a `RefreshRequest` on standard input and writes a `RefreshResult` on standard output; with the
argument `labels`, a `LabelsRequest` and a `LabelsResult`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from drift_monitor.actions.refresh import (
    MANIFEST,
    TRAIN,
    LabelsRequest,
    LabelsResult,
    RefreshError,
    RefreshRequest,
    RefreshResult,
)
from drift_monitor.config.intake import SpooledSource
from drift_monitor.config.loop import unrefreshable
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.types import Window
from drift_monitor.service.evaluate import CheckRequest
from drift_monitor.service.labels import count_labels
from drift_monitor.service.live_windows import judge, stretches, windows_of
from drift_monitor.service.lock import locked
from drift_monitor.service.packages import versions
from drift_monitor.service.refresh_manifest import (
    Counts,
    Group,
    InputFile,
    Inputs,
    LiveWindow,
    Part,
    Places,
    RefreshManifest,
    read_manifest,
)
from drift_monitor.service.worker import die_with, limit_memory

if TYPE_CHECKING:
    from drift_monitor.actions.training_set import Inputs as Opened
    from drift_monitor.actions.training_set import Made, Recipe

MEMORY: Final = 8 * 2**30
"""Bytes of the child: enough for 80 million rows."""
_BUILDING: Final = ".building-"
_GROUPS_LISTED: Final = 1000
_BLOCK: Final = 1 << 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Tell = Callable[[int, int], None]


def refresh(request: RefreshRequest, *, progress: Tell | None = None) -> RefreshResult:
    """Make a version of the training set in this process. The same inputs give the same version again.

    Args:
        request: what to make and where to write it.
        progress: called with (steps done, steps in all); the latter grows.

    Raises:
        DriftMonitorError: a setting is missing, rows cannot be read or used, or no live row can be taken.
        OSError: the version cannot be written.
    """
    from drift_monitor.actions.training_set import Inputs as Opened  # noqa: PLC0415
    from drift_monitor.actions.training_set import Progress, Recipe  # noqa: PLC0415

    monitor, steps = request.monitor, Progress(progress)
    if why := unrefreshable(monitor.source, monitor.labels):
        raise RefreshError(why)
    recipe = Recipe(
        training=str(_live_training(request)),
        source=monitor.source,
        columns=monitor.columns,
        settings=monitor.refresh.model_copy(update={"enabled": True}),  # whoever asks, the version is the same
        window=monitor.window.length,
        labels=monitor.labels,
    )
    stretch = None
    if request.window is not None:
        stretch = Window(start=request.window.end - monitor.refresh.live, end=request.window.end)
    with _workspace(request.output) as temporary:
        inputs = Opened(recipe, temporary)
        inputs.other_columns(stretch)  # before the checks, which take longer, find out that one is missing
        windows: Sequence[Window | None] = (
            [None] if stretch is None else windows_of(stretch, monitor.window.length)
        )
        steps.plan(len(windows))
        check = CheckRequest(name=request.name, monitor=monitor, state=request.state, window=None)
        judged = judge(check, windows, steps.done)
        _refuse_nothing_usable(judged)
        target = temporary / "version"
        target.mkdir()
        made = inputs.write(stretches(judged, stretch), target, steps)
        manifest = _manifest(request.name, recipe, stretch, judged, inputs, made, target)
        return _put_in_place(target, request.output, manifest)


def rebuild(path: Path, output: Path | None = None, *, progress: Tell | None = None) -> RefreshResult:
    """Make a version again from its manifest, and make sure that it has the same bytes.

    Args:
        path: of the manifest or its folder.
        output: the folder of versions to write to; that of the manifest when None. There an intact version stays,
            and one that is damaged or lacks files is replaced.
        progress: called with (steps done, steps in all); the latter grows.

    Raises:
        RefreshError: the manifest is damaged; an input is gone or has changed, or the bytes are not the same: the
            message says which and why.
        DriftMonitorError: rows cannot be read.
        OSError: the version cannot be written.
    """
    from drift_monitor.actions.training_set import Inputs as Opened  # noqa: PLC0415
    from drift_monitor.actions.training_set import Progress, Recipe  # noqa: PLC0415
    from drift_monitor.sources.spool import holders  # noqa: PLC0415

    old = read_manifest(path)
    folder = path if path.is_dir() else path.parent
    training = _unchanged("training", old.places.training, old.inputs.training)
    now = holders(old.places.live) if isinstance(old.places.source, SpooledSource) else {}
    live = _unchanged("live", old.places.live, old.inputs.live, now)
    together = any(path != at for path, at in now.items())
    labels = _unchanged("label", old.places.label_files, old.inputs.labels)
    recipe = Recipe(
        training=old.places.training_path,
        source=old.places.source,
        columns=old.columns,
        settings=old.settings,
        window=timedelta(seconds=old.window),
        labels=old.places.labels,
    )
    output = folder.absolute().parent if output is None else output
    with _workspace(output) as temporary:
        inputs = Opened(
            recipe, temporary, training, live if old.inputs.live else None, labels if old.inputs.labels else None
        )
        target = temporary / "version"
        target.mkdir()
        made = inputs.write(stretches(old.windows, old.stretch), target, Progress(progress))
        again = _manifest(old.monitor, recipe, old.stretch, old.windows, inputs, made, target)
        _compare(old, again, together=together)
        return _put_in_place(target, output, old)


def _live_training(request: RefreshRequest) -> Path:
    """Where the rows are that the live model was trained on: those configured, or those of a retraining since."""
    from drift_monitor.service.promotions import promotion_of  # noqa: PLC0415
    from drift_monitor.service.references import training_of  # noqa: PLC0415

    configured = training_path(request.name, request.monitor)
    if promotion_of(request.state, request.name) is None:
        return configured
    return training_of(request.name, request.monitor, request.state, now=lambda: datetime.now(UTC))


def training_path(name: str, monitor: Monitor) -> Path:
    """Where the old training rows are.

    Raises:
        RefreshError: the configuration does not say.
    """
    if monitor.training is not None:
        return monitor.training
    if not monitor.reference.is_dir():
        return monitor.reference
    raise RefreshError(
        f"monitors.{name}.reference is a reference folder, which keeps no rows: set monitors.{name}.training to "
        "the file that the model was trained on"
    )


def _refuse_nothing_usable(windows: Sequence[LiveWindow]) -> None:
    if any(window.taken for window in windows):
        return
    told = max(windows, key=lambda window: window.rows)
    raise RefreshError(
        f"there is nothing new to learn from: none of the {len(windows)} live windows can be used, such as {told}"
    )


def _manifest(
    name: str,
    recipe: Recipe,
    stretch: Window | None,
    windows: tuple[LiveWindow, ...],
    inputs: Opened,
    made: Made,
    folder: Path,
) -> RefreshManifest:
    training, live = inputs.training_files, _counts(made.live)
    parts = [
        Part(name=part, share=share, rows=rows, file=f"{part}.parquet", **_hash(folder / f"{part}.parquet"))
        for (part, share), rows in zip(recipe.settings.parts.items(), made.rows, strict=True)
    ]
    day = "undated" if made.newest is None else f"{_EPOCH + timedelta(microseconds=made.newest):%Y-%m-%d}"
    return RefreshManifest(
        places=Places(
            training_path=recipe.training,
            training=tuple(map(_printable, training)),
            live=tuple(map(_printable, made.live_files)),
            source=recipe.source,
            label_files=tuple(map(_printable, made.label_files)),
            labels=recipe.labels,
        ),
        monitor=name,
        columns=recipe.columns,
        settings=recipe.settings,
        window=recipe.window.total_seconds(),
        stretch=stretch,
        windows=windows,
        inputs=Inputs(training=_inputs(training), live=_inputs(made.live_files), labels=_inputs(made.label_files)),
        schema_={field.name: str(field.type) for field in inputs.schema},
        dropped_columns=tuple(made.dropped_columns),
        training=_counts(made.training),
        live=live,
        labelled=1 - live.dropped.get("no_label", 0) / live.read,
        groups=tuple(
            Group(values=values, rows=rows, taken=taken) for values, rows, taken in made.groups[:_GROUPS_LISTED]
        ),
        parts=tuple(parts),
        packages=versions(),
    ).sealed(day)


def _counts(fates: Mapping[str, int]) -> Counts:
    dropped = {fate: rows for fate, rows in fates.items() if fate != "taken"}
    return Counts(read=sum(fates.values()), taken=fates.get("taken", 0), dropped=dropped)


def _inputs(files: Mapping[str, int]) -> tuple[InputFile, ...]:
    return tuple(
        InputFile(name=_printable(Path(path).name), **_hash(Path(path), size)) for path, size in files.items()
    )


def _printable(path: str) -> str:
    """A path as text that can be written, whatever bytes it has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _hash(path: Path, size: int | None = None) -> dict[str, int | str]:
    """Length and sha256 of a file, or of its first bytes."""
    digest, left = hashlib.sha256(), path.stat().st_size if size is None else size
    whole = left
    with path.open("rb") as file:
        while left and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return {"bytes": whole - left, "sha256": digest.hexdigest()}


def _unchanged(
    side: str, paths: Sequence[str], inputs: Sequence[InputFile], now: Mapping[str, str] | None = None
) -> dict[str, int]:
    """The inputs of a side, path -> bytes.

    Args:
        side: its name.
        paths: of the files.
        inputs: what they were.
        now: where the rows of some of them are; a file that was put into another cannot be compared.

    Raises:
        RefreshError: one is gone or has changed.
    """
    problems: list[str] = []
    same: dict[str, int] = {}
    for path, wanted in zip(paths, inputs, strict=True):
        at = (now or {}).get(path, path)
        try:
            if at != path:
                same[at] = Path(at).stat().st_size
                continue
            found = _hash(Path(path), wanted.bytes)
        except OSError as error:
            problems.append(f"{path} cannot be read ({error.strerror})")
            continue
        if found != wanted.model_dump(exclude={"name"}):
            problems.append(f"{path} has changed (sha256 {found['sha256']}, then {wanted.sha256})")
        same[path] = wanted.bytes
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise RefreshError(f"the {side} rows are not the same as then: {'; '.join(problems[:5])}{more}")
    return same


def _compare(old: RefreshManifest, new: RefreshManifest, *, together: bool) -> None:
    differing = [a.file for a, b in zip(old.parts, new.parts, strict=True) if a != b]
    if not differing:
        return
    now = versions()
    changed = [
        f"{name} {was} then, {now.get(name)} now" for name, was in old.packages.items() if now.get(name) != was
    ]
    inputs = "the inputs are the same as then"
    if together:
        inputs = "files of the spool were put together since, maybe with rows that came later"
    raise RefreshError(
        f"{inputs}{':' if together else ', but'} {', '.join(differing)} has other bytes"
        + (f": {'; '.join(changed)}" if changed else "")
    )


def _put_in_place(target: Path, output: Path, manifest: RefreshManifest) -> RefreshResult:
    """Rename the finished version to its name, unless it is there already and intact."""
    from drift_monitor.reference.version import sync_folder, write_durably  # noqa: PLC0415

    folder = output / manifest.version
    if not _is_intact(folder, manifest):
        write_durably(target / MANIFEST, manifest.model_dump_json(indent=2).encode() + b"\n")
        sync_folder(target)
        if folder.exists():
            folder.rename(target.with_name("damaged"))
        target.rename(folder)
        sync_folder(output)
    train = next(part for part in manifest.parts if part.name == TRAIN)
    return RefreshResult(
        path=folder,
        train=folder / train.file,
        train_sha256=train.sha256,
        rows={part.name: part.rows for part in manifest.parts},
        sha256=manifest.sha256,
        labelled=manifest.labelled,
        left_out=tuple(str(window) for window in manifest.windows if not window.taken),
    )


def _is_intact(folder: Path, manifest: RefreshManifest) -> bool:
    try:
        read_manifest(folder / MANIFEST)
        return all(
            _hash(folder / part.file) == {"bytes": part.bytes, "sha256": part.sha256} for part in manifest.parts
        )
    except (RefreshError, OSError):
        return False


@contextmanager
def _workspace(output: Path) -> Iterator[Path]:
    """A folder to build in, on the same disk; what a killed process left there is removed.

    Two processes that write to the same folder wait for each other.
    """
    with locked(output):
        for left in output.glob(f"{_BUILDING}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_BUILDING, dir=output) as temporary:
            yield Path(temporary)


def main(arguments: Sequence[str]) -> int:
    """A request on standard input, a result on standard output, an error as the last line of standard error."""
    die_with(os.getppid())
    limit_memory(MEMORY)
    with redirect_stdout(sys.stderr):
        try:
            raw = sys.stdin.buffer.read()
            result: RefreshResult | LabelsResult
            if list(arguments) == ["labels"]:
                result = count_labels(LabelsRequest.model_validate_json(raw))
            else:
                result = refresh(RefreshRequest.model_validate_json(raw))
        except ValidationError as error:
            sys.stderr.write(f"the request cannot be read: {error.errors()[0]['msg']}\n")
            return 1
        except MemoryError:
            sys.stderr.write(
                "it ran out of memory: shorten refresh.live, or run `drift-monitor refresh`, which has no limit\n"
            )
            return 1
        except (DriftMonitorError, OSError) as error:
            sys.stderr.write(" ".join(str(error).split()) + "\n")
            return 1
    sys.stdout.write(result.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

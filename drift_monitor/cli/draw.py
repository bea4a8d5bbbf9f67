"""A check drawn for people: the verdict, the features in order of blame, and what moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from drift_monitor.config.problem import printable
from drift_monitor.core.policy import format_duration
from drift_monitor.core.types import CheckResult, FeatureResult, Histogram, Outcome, Performance

STYLES = {
    Outcome.OK: "bold green",
    Outcome.DRIFT: "bold red",
    Outcome.BROKEN: "bold magenta",
    Outcome.NO_DATA: "bold yellow",
    Outcome.CANNOT_JUDGE: "bold yellow",
}
_BAR = 24  # columns of the longest bar
_FEATURES = 20  # shown unless all are asked for
_HISTOGRAMS = 3
_WIDE = 110  # columns of a terminal that has room for the methods
_NAME = 40  # characters of a feature's or category's name


def draw_check(result: CheckResult, *, everything: bool = False) -> RenderableType:
    """The whole result.

    Args:
        result: of one check.
        everything: all features, all expectations and all histograms, not only those that matter most.
    """
    parts: list[RenderableType] = [draw_verdict(result), *_signals(result)]
    shown = result.features if everything else result.features[:_FEATURES]
    if shown:
        parts += [Text(), draw_features(shown, result.window.length)]
    if len(result.features) > len(shown):
        missed = sum(feature.score is None for feature in result.features)
        unjudged = f"; {missed} of all {len(result.features)} were not judged" if missed else ""
        more = f"and {len(result.features) - len(shown)} more features (-v shows them){unjudged}"
        parts.append(Text(more, style="dim"))
    drawn = [f for f in result.drifted if f.histogram is not None]
    for feature in drawn if everything else drawn[:_HISTOGRAMS]:
        parts += [Text(), draw_histogram(feature)]
    if len(drawn) > _HISTOGRAMS and not everything:
        parts.append(Text(f"and {len(drawn) - _HISTOGRAMS} more histograms (-v draws them)", style="dim"))
    for check in result.quality if everything else result.failed_quality:
        mark = Text("broken ", style="magenta") if check.failed else Text("fine   ", style="green")
        parts.append(Text.assemble(mark, f"{check.check}: {printable(check.message, 500)}"))
    if result.performance is not None:
        parts += [Text(), Text("Model performance", style="bold"), *performance_lines(result.performance)]
    return Group(*parts)


def performance_lines(found: Performance) -> Iterator[Text]:
    """How wrong the predictions were, of which stretch, and how many of them have a label."""
    counted = "" if found.coverage is None else f" ({found.coverage:.0%})"
    of = f"{found.labelled:,} of {found.rows:,} predictions have a label{counted}"
    yield Text(f"  {found.window}: {of}")
    for loss in found.losses:
        error = "" if loss.standard_error is None else f" +- {loss.standard_error:.2g}"
        before = "" if loss.reference is None else f"; reference {loss.reference:.4g}"
        yield Text(f"  {loss.metric} {loss.value:.4g}{error}{before}")
    if found.note:
        yield Text(f"  {printable(found.note, 500)}", style="dim")


def draw_verdict(result: CheckResult, *, promise: bool = True) -> RenderableType:
    """The verdict, why, what was compared, and what is promised about false alerts."""
    lines = [
        Text.assemble(
            (f"{result.verdict.value} ", STYLES[result.verdict]),
            (result.monitor, "bold"),
            f"  {result.window}",
        ),
        Text(printable(result.reason, 2000)),
    ]
    sample = "" if result.sample is None else f" of a sample of {result.sample:.3g}%"
    facts = [f"{result.rows:,} rows{sample}"]
    if result.reference is not None:
        reference = result.reference
        facts.append(f"reference {reference.version} of {reference.rows:,} rows")
    if result.score is not None and result.threshold is not None:
        facts.append(f"score {result.score:.3g}, threshold {result.threshold:.3g}")
    lines.append(Text("; ".join(facts)))
    if promise:
        words = result.promise
        if words.startswith("none: "):
            words = f"no promise: {words.removeprefix('none: ')}"
        lines.append(Text(words, style="dim"))
    return Group(*lines)


@dataclass(frozen=True)
class draw_features:  # noqa: N801  called like its neighbours; it is a class to learn the terminal's width
    """One row a feature: as many columns as the terminal has room for.

    Attributes:
        features: in the order of the rows.
        length: of the run's own window; where a score is of another, its row says so.
    """

    features: Sequence[FeatureResult]
    length: timedelta | None = None

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table."""
        yield _table(self.features, self.length, wide=options.max_width >= _WIDE)


def _signals(result: CheckResult) -> Iterator[Text]:
    """The signals over the threshold that are no single feature."""
    for signal in result.signals:
        if signal.over and signal.channel != "features":
            window = f" in the last {format_duration(timedelta(seconds=signal.window))}" if signal.window else ""
            what = f": {printable(signal.detail, 500)}" if signal.detail else ""
            score = f"  {signal.channel}{window}, score {signal.score:.3g}{what}"
            yield Text.assemble(("over  ", "red"), score.lstrip())


def _moved(feature: FeatureResult, length: timedelta | None) -> str:
    """What moved, and in which window where that is not the run's own."""
    moved = printable(feature.effect or feature.reason or "", 200)
    if feature.window is None or length is None or timedelta(seconds=feature.window) == length:
        return moved
    return f"{moved} (scored in {format_duration(timedelta(seconds=feature.window))})"


def _table(features: Sequence[FeatureResult], length: timedelta | None, *, wide: bool) -> Table:
    """The decisive numbers; all others are in --json."""
    methods = _in_order(method for f in features for method in f.statistics)
    methods = [m for m in ("ks", "psi") if m in methods] if wide else []
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("feature", overflow="fold")
    table.add_column("", no_wrap=True)
    if wide:
        table.add_column("kind", no_wrap=True)
        table.add_column("method", no_wrap=True)
    for heading in ("score", "limit", *methods, "nulls"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what moved", overflow="fold", min_width=20)
    for feature in features:
        kind = feature.kind if feature.role == "feature" else feature.role
        table.add_row(
            _feature_name(feature),
            Text("drift", style="red") if feature.drifted else Text("-" if feature.score is None else "ok"),
            *([kind, feature.method or "-"] if wide else []),
            _number(feature.score),
            _number(feature.threshold),
            *(_number(feature.statistics[m].statistic if m in feature.statistics else None) for m in methods),
            "-" if feature.null_ratio is None else f"{feature.null_ratio:.1%}",
            Text(_moved(feature, length)),
        )
    return table


def draw_histogram(feature: FeatureResult) -> RenderableType:
    """Reference and current side by side, one line a bin.

    Args:
        feature: with a histogram; without one only its name and effect are drawn.
    """
    title = Text.assemble(_feature_name(feature, "bold"), f"  {printable(feature.effect or '', 200)}")
    if feature.histogram is None:
        return title
    return Group(title, Padding(draw_bars(feature.histogram, drifted=feature.drifted), (0, 0, 0, 2)))


def draw_bars(histogram: Histogram, *, drifted: bool) -> RenderableType:
    """The bars alone."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("", justify="right", overflow="fold", max_width=_NAME)
    table.add_column("reference", width=_BAR)
    table.add_column("", justify="right")
    table.add_column("current", width=_BAR)
    table.add_column("", justify="right")
    shares = list(zip(histogram.reference, histogram.current, strict=True))
    longest = max((max(pair) for pair in shares), default=0.0)
    for label, (before, now) in zip(histogram.labels, shares, strict=True):
        table.add_row(
            _name(label),
            _bar(before, longest, "blue"),
            f"{before:.1%}",
            _bar(now, longest, "red" if drifted else "green"),
            f"{now:.1%}",
        )
    return table


def _bar(share: float, longest: float, color: str) -> RenderableType:
    return Bar(longest, 0, share, color=color) if share > 0 else Text()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _feature_name(feature: FeatureResult, style: str = "") -> Text:
    """The name of a feature, of a segment with room for the segment."""
    return Text(printable(feature.name, _NAME if feature.segment is None else 3 * _NAME), style)


def _name(text: str) -> Text:
    """A name from outside: as text, so that `[red]` in it stays what it is."""
    return Text(printable(text, _NAME))


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))

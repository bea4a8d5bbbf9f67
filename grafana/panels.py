"""What the four dashboards are made of: panels, variables, annotations and the grid, on grafana-foundation-sdk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import prometheus as prometheus_model
from grafana_foundation_sdk.models import text as text_model
from queries import DAEMON, metric, retraining

GREEN, YELLOW, ORANGE, RED, PURPLE, BLUE, GREY = (
    *("green", "yellow", "orange", "red", "purple", "blue"),
    "#6e7687",  # legible on the dark and on the light theme
)
SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
DAEMON_URL = "http://localhost:9877"  # of `server.public_url`; the default of `server.listen`

# Links keep the time range and what is selected. `:queryparam` writes var-name=value, escaped.
_KEEP = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"
PAGE = "${daemon_url}/monitors/"

Step = tuple[float | None, str]
_Panel = TypeVar("_Panel", bound=Any)  # a panel's builder; the SDK gives them no common class
Link = dict[str, object]
ABOVE = None  # where links and marks are placed: in sight, and not in a menu as the SDK has it


def query(
    ref: str,
    expr: str,
    legend: str = "__auto",
    *,
    instant: bool = False,
    form: prometheus_model.PromQueryFormat = prometheus_model.PromQueryFormat.TIME_SERIES,
    exemplars: bool = False,
) -> prometheus.Dataquery:
    """One PromQL target of a panel."""
    target = (
        prometheus.Dataquery()
        .ref_id(ref)
        .datasource(SOURCE)
        .editor_mode(prometheus_model.QueryEditorMode.CODE)
        .expr(expr)
        .legend_format(legend)
        .format(form)
        .exemplar(exemplars)
    )
    return target.instant() if instant else target.range()


def row(ref: str, expr: str) -> prometheus.Dataquery:
    """A column of a table: one value a row, as of the end of the time range."""
    return query(ref, expr, instant=True, form=prometheus_model.PromQueryFormat.TABLE)


def steps(*pairs: Step) -> dashboard.ThresholdsConfig:
    """Thresholds from (lower bound, color) pairs; the first bound is None."""
    return (
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in pairs])
    )


BAD_ABOVE_ONE: tuple[Step, ...] = ((None, GREEN), (0.8, YELLOW), (1, RED))  # score / threshold


def mapping(values: Mapping[str, tuple[str, str]]) -> model.ValueMap:
    """Words and colors for numbers: value -> (text, color)."""
    return model.ValueMap(
        options={
            value: model.ValueMappingResult(text=words, color=color, index=index)
            for index, (value, (words, color)) in enumerate(values.items())
        }
    )


def color(mode: model.FieldColorModeId, fixed: str | None = None) -> dashboard.FieldColor:
    """How a field gets its color."""
    chosen = dashboard.FieldColor().mode(mode)
    return chosen if fixed is None else chosen.fixed_color(fixed)


def link(title: str, url: str, *, new_tab: bool = False) -> Link:
    """Where a click on a value leads."""
    return {"title": title, "url": url, "targetBlank": new_tab}


def to_monitor(name: str) -> Link:
    """A link to the dashboard of the monitor whose name `name` stands for, such as `__value.raw`."""
    return link("Monitor", f"/d/drift-monitor-monitor?{_KEEP}&var-monitor=${{{name}:percentencode}}")


def to_feature(monitor: str, name: str) -> Link:
    """A link to the dashboard of a feature, likewise."""
    chosen = f"var-monitor=${{{monitor}:percentencode}}&var-feature=${{{name}:percentencode}}"
    return link("Feature", f"/d/drift-monitor-feature?{_KEEP}&{chosen}")


def properties(**values: object) -> list[model.DynamicConfigValue]:
    """Properties of an override; `custom__width` stands for `custom.width`."""
    return [model.DynamicConfigValue(id_val=key.replace("__", "."), value=value) for key, value in values.items()]


def _begin(panel: _Panel, title: str, description: str, targets: Iterable[prometheus.Dataquery]) -> _Panel:
    panel.title(title).description(description).datasource(SOURCE)
    for target in targets:
        panel.with_target(target)
    return panel


def _newest() -> shared.ReduceDataOptions:
    return shared.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(values=False)


def tile(
    title: str,
    description: str,
    expr: str,
    colors: Sequence[Step],
    *,
    unit: str = "none",
    decimals: int | None = None,
    none: str = "no data",
    name: str | None = None,
    words: Sequence[model.ValueMap | model.RangeMap] = (),
    links: Sequence[Link] = (),
) -> stat.Panel:
    """One number. `name` shows the series' name above it; `none` stands where there is nothing to show."""
    panel = _begin(stat.Panel(), title, description, [query("A", expr, name or "__auto", instant=True)])
    panel.unit(unit).no_value(none).thresholds(steps(*colors)).mappings(list(words))
    panel.color_scheme(color(model.FieldColorModeId.THRESHOLDS))
    if decimals is not None:
        panel.decimals(decimals)
    if links:
        panel.override_by_query("A", properties(links=list(links)))
    if name:
        # A long name would make both tiny.
        panel.text(shared.VizTextDisplayOptions().title_size(16).value_size(24))
    return (
        panel.reduce_options(_newest())
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME if name else common.BigValueTextMode.VALUE)
        .justify_mode(common.BigValueJustifyMode.CENTER)
        .wide_layout(wide_layout=False)
    )


def lines(
    title: str,
    description: str,
    targets: Sequence[prometheus.Dataquery],
    *,
    unit: str,
    limit: float | None = None,
    maximum: float | None = None,
    soft_maximum: float | None = None,
    minimum: float | None = 0,
    decimals: int | None = None,
    slopes: bool = False,
    listed: bool = False,
    none: str = "no data",
) -> timeseries.Panel:
    """Values over time; `limit` draws a threshold.

    A gauge holds its value until the next run, so lines are steps: a slope between two runs would be made up. Ages
    grow by themselves, and have `slopes`. Where there may be ten lines the legend has names only (`listed`).
    """
    panel = _begin(timeseries.Panel(), title, description, targets)
    panel.unit(unit).no_value(none).color_scheme(color(model.FieldColorModeId.PALETTE_CLASSIC))
    panel.draw_style(common.GraphDrawStyle.LINE)
    panel.line_interpolation(common.LineInterpolation.LINEAR if slopes else common.LineInterpolation.STEP_AFTER)
    panel.line_width(2).fill_opacity(0).show_points(common.VisibilityMode.NEVER).span_nulls(span_nulls=False)
    if minimum is not None:
        panel.min(minimum)
    if decimals is not None:
        panel.decimals(decimals)
    if maximum is not None:
        panel.max(maximum)
    if soft_maximum is not None:
        panel.axis_soft_max(soft_maximum)
    if limit is not None:
        panel.thresholds(steps((None, "transparent"), (limit, RED))).axis_soft_max(1.5 * limit)
        panel.thresholds_style(shared.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    panel.tooltip(
        shared.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    if listed:
        return panel.legend(_legend().display_mode(common.LegendDisplayMode.LIST))
    return panel.legend(_legend("lastNotNull", "max"))


def _legend(*calculations: str) -> shared.VizLegendOptions:
    # Each reduction is a column of the legend's table, so that two lines of one color can still be told apart.
    return (
        shared.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
        .calcs(list(calculations))
    )


def bars_over_time(
    title: str, description: str, targets: Sequence[prometheus.Dataquery], *, unit: str
) -> timeseries.Panel:
    """Stacked bars: parts of a whole."""
    panel = lines(title, description, targets, unit=unit)
    panel.draw_style(common.GraphDrawStyle.BARS).fill_opacity(80).line_width(0)
    panel.stacking(shared.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    return panel.legend(_legend().display_mode(common.LegendDisplayMode.LIST))


def threshold_line(panel: timeseries.Panel, pattern: str) -> timeseries.Panel:
    """Draw the series whose name matches `pattern` as the thresholds that they are: red and dashed."""
    return panel.override_by_regexp(
        pattern,
        properties(
            color={"mode": "fixed", "fixedColor": RED},
            custom__lineStyle={"fill": "dash", "dash": [8, 6]},
            custom__lineWidth=1,
        ),
    )


def bars(
    title: str,
    description: str,
    expr: str,
    legend: str,
    colors: Sequence[Step],
    *,
    unit: str = "none",
    decimals: int | None = None,
    maximum: float | None = None,
    none: str = "no data",
    links: Sequence[Link] = (),
) -> bargauge.Panel:
    """Horizontal bars, one a series, as of the end of the time range; those beyond `maximum` are full."""
    panel = _begin(bargauge.Panel(), title, description, [query("A", expr, legend, instant=True)])
    panel.unit(unit).min(0).no_value(none).thresholds(steps(*colors))
    if maximum is not None:
        panel.max(maximum)
    panel.color_scheme(color(model.FieldColorModeId.THRESHOLDS))
    if decimals is not None:
        panel.decimals(decimals)
    if links:
        panel.override_by_query("A", properties(links=list(links)))
    return (
        panel.reduce_options(_newest())
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .value_mode(common.BarGaugeValueMode.COLOR)
        .name_placement(common.BarGaugeNamePlacement.LEFT)
        .show_unfilled(show_unfilled=True)
    )


def timeline(
    title: str,
    description: str,
    targets: Sequence[prometheus.Dataquery],
    words: Sequence[model.ValueMap | model.RangeMap],
    *,
    none: str = "no data",
    legend: bool = True,
    links: Sequence[Link] = (),
) -> statetimeline.Panel:
    """A band a series: from when until when it was what."""
    panel = _begin(statetimeline.Panel(), title, description, targets)
    panel.unit("none").no_value(none).mappings(list(words)).thresholds(steps((None, GREY)))
    panel.color_scheme(color(model.FieldColorModeId.THRESHOLDS))
    if links:
        panel.override_by_field_type("number", properties(links=list(links)))
    return (
        panel.merge_values(merge_values=True)
        .show_value(common.VisibilityMode.AUTO)
        .align_value(common.TimelineValueAlignment.LEFT)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(
            shared.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(legend)
        )
        .tooltip(shared.VizTooltipOptions().mode(common.TooltipDisplayMode.SINGLE).sort(common.SortOrder.NONE))
    )


def cells(
    title: str,
    description: str,
    targets: Mapping[str, str],
    columns: Mapping[str, str],
    hidden: Sequence[str],
    *,
    keep: Sequence[str] = (),
) -> table.Panel:
    """A table of instant queries merged on their common labels.

    Args:
        title: of the panel.
        description: of the panel.
        targets: refId -> PromQL.
        columns: field -> heading, in the order shown. The value of query X is the field `Value #X`.
        hidden: further fields, not shown; `job` and `instance` are hidden too.
        keep: of those two, the ones to show.
    """
    panel = _begin(table.Panel(), title, description, [row(ref, expr) for ref, expr in targets.items()])
    panel.unit("none").no_value("-").filterable(filterable=True).thresholds(steps((None, GREY)))
    panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {name: True for name in ("Time", "job", "instance", *hidden) if name not in keep},
                "indexByName": {name: i for i, name in enumerate(columns)},
                "renameByName": dict(columns),
            },
        )
    )
    for field, heading in columns.items():
        if not field.startswith("Value #"):  # a label: without this a version "3.1" is shown as the number 3.10
            panel.override_by_name(heading, properties(unit="string"))
    return panel.show_header(show_header=True).cell_height(common.TableCellHeight.SM)


RATIO_CELL = {
    "decimals": 2,
    "min": 0,
    "max": 2,
    "color": {"mode": "thresholds"},
    "thresholds": {
        "mode": "absolute",
        "steps": [{"value": value, "color": shade} for value, shade in BAD_ABOVE_ONE],
    },
    "custom__cellOptions": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
    "custom__minWidth": 130,
}
"""How a column of score / threshold is drawn."""


def durations(title: str, description: str, expr: str) -> heatmap.Panel:
    """A histogram over time: the brighter, the more runs took that long."""
    target = query("A", expr, "{{le}}", form=prometheus_model.PromQueryFormat.HEATMAP)
    panel = _begin(heatmap.Panel(), title, description, [target])
    panel.unit("short").calculate(calculate=False).cell_gap(1).show_legend()
    panel.y_axis(_seconds_axis())
    return panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_model.HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .scale(heatmap_model.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
        .reverse(reverse=False)
    )


def _seconds_axis() -> heatmap.YAxisConfig:
    """Seconds, on the left."""
    return heatmap.YAxisConfig().unit("s").axis_placement(common.AxisPlacement.LEFT)


def words(title: str, markdown: str) -> text.Panel:
    """A panel that says something."""
    return (
        text.Panel()
        .title(title)
        .description("How to read this page.")
        .mode(text_model.TextMode.MARKDOWN)
        .content(markdown)
    )


Band = str | tuple[int, Sequence[tuple[int, Any]]]


def place(page: dashboard.Dashboard, *bands: Band) -> dashboard.Dashboard:
    """Lay panels out from the top: a text is a heading, the rest is (height, [(width, panel), ...]), 24 wide."""
    y, number = 0, 0
    for band in bands:
        if isinstance(band, str):
            number += 1
            heading = dashboard.Row(band).id(number).grid_pos(model.GridPos(x=0, y=y, w=24, h=1))
            page.with_row(heading)
            y += 1
            continue
        height, panels = band
        x = 0
        for width, panel in panels:
            number += 1
            page.with_panel(panel.id(number).grid_pos(model.GridPos(x=x, y=y, w=width, h=height)))
            x += width
        y += height
    return page


def page(uid: str, title: str, description: str, variables: Sequence[Builder[Any]]) -> dashboard.Dashboard:
    """An empty dashboard with what all have: tag, time, links, data source, job, instance, the daemon's URL."""
    built = (
        dashboard.Dashboard(f"drift-monitor / {title}")
        .uid(f"drift-monitor-{uid}")
        .description(description)
        .tags(["drift-monitor"])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .timezone("utc")
        .refresh("1m")
        .time("now-7d", "now")
        .version(1)
        .link(
            dashboard.DashboardLink("drift-monitor")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["drift-monitor"])
            .as_dropdown(as_dropdown=True)
            .keep_time(keep_time=True)
            .include_vars(include_vars=True)
            .placement(ABOVE)
        )
    )
    standing = (
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        variable("job", "Job", metric("build_info", "")),
        variable("instance", "Instance", metric("build_info", 'job=~"$job"')),
        *variables,
        dashboard.ConstantVariable("daemon_url").label("Address of the daemon's pages").value(DAEMON_URL),
    )
    for one in standing:
        built.with_variable(one)
    return built


def to_page(title: str, url: str) -> dashboard.DashboardLink:
    """A link beside the time picker, out of Grafana."""
    return (
        dashboard.DashboardLink(title)
        .type(model.DashboardLinkType.LINK)
        .icon("external link")
        .url(url)
        .target_blank(target_blank=True)
        .placement(ABOVE)
    )


def variable(name: str, label: str, series: str, *, multi: bool = True) -> dashboard.QueryVariable:
    """The values of a label; `multi` lets several, or all, be chosen."""
    definition = f"label_values({series}, {name})"
    chosen = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .definition(definition)
        .query({"qryType": 1, "query": definition, "refId": f"variable-{name}"})
        # When the time range changes: a monitor that is gone can still be looked at.
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(multi)
        .include_all(multi)
    )
    if multi:
        chosen.all_value(".+").current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    return chosen


def monitors(*, multi: bool) -> dashboard.QueryVariable:
    """The variable `monitor`."""
    return variable("monitor", "Monitor", metric("monitor_info", DAEMON), multi=multi)


def alerts(of: str) -> dashboard.AnnotationQuery:
    """Stretches on all graphs in which an alert fired.

    Args:
        of: label matchers of the daemons or monitors shown.
    """
    # An alert about a receiver or a daemon has no monitor, and concerns every page of many monitors.
    of_any = of.replace('monitor=~"$monitor"', 'monitor=~"$monitor|"')
    firing = 'alertname=~"DriftMonitor.+", alertname!="DriftMonitorWatchdog", alertstate="firing"'
    return _annotation(
        "Alerts",
        RED,
        f"ALERTS{{{firing}, {of_any}}}",
        "{{alertname}} {{monitor}}{{receiver}}",
        "Firing. Needs the rules of alerts/ in Prometheus.",
    )


def annotations(of: str) -> list[dashboard.AnnotationQuery]:
    """Marks on all graphs: alerts, references, retrainings and, when switched on, episodes.

    Args:
        of: label matchers of the monitors shown.
    """
    return [
        alerts(of),
        _annotation(
            "References",
            BLUE,
            f"1000 * {metric('reference_loaded_timestamp_seconds', of)}",
            "{{monitor}}: reference loaded",
            "Windows are compared with this reference from here on.",
            value_is_time=True,
        ),
        _annotation(
            "Retrainings",
            PURPLE,
            f"1000 * {retraining(of)}",
            "{{monitor}}: retraining {{state}}",
            "The newest retraining came into this state.",
            value_is_time=True,
        ),
        _annotation(
            "Open episodes",
            ORANGE,
            f"{metric('episode_open', of)} == 1",
            "{{monitor}}: {{lane}} episode",
            "An episode was open: as many windows failed as the monitor's persistence asks for.",
            enable=False,
        ),
    ]


def _annotation(
    name: str, shade: str, expr: str, title: str, says: str, *, value_is_time: bool = False, enable: bool = True
) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(enable)
        .hide(hide=False)
        .icon_color(shade)
        .expr(expr)
        .step("60s")
        .title_format(title)
        .text_format(says)
        .tag_keys("monitor")
        .use_value_for_time(value_is_time)
        .placement(ABOVE)
    )

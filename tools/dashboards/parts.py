"""What the dashboards are put together from: queries, panels that all have a description and a unit, variables, links.

Must not know which dashboard it serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import common as common_parts
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, statushistory, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, units
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
NAMESPACE = 'namespace=~"$namespace"'
RUNBOOK = "docs/runbooks/${__data.fields.alert}.md"
"""Where the runbook of an alert in a table is; the chart puts its own value in its place."""

WIDTH, HALF, THIRD, QUARTER, SIXTH = 24, 12, 8, 6, 4
UIDS = {"fleet": "concord-fleet", "site": "concord-site", "inference": "concord-inference"}

Steps = Mapping[float | None, str]
"""Colours by the value from which on they hold; None is where it begins."""

CALM: Steps = {None: "green"}
HIGH_IS_BAD: Steps = {None: "green", 1: "red"}
LOW_IS_BAD: Steps = {None: "red", 1: "green"}


@dataclass(frozen=True)
class Query:
    """An expression, and how its series are named in the legend; in a table `name` is the column."""

    expr: str
    legend: str = "{{site}}"
    name: str = field(default="")


def curve(
    title: str,
    description: str,
    *queries: Query,
    unit: str = units.Short,
    span: int = HALF,
    steps: Steps = CALM,
    least: float | None = 0,
    stacked: bool = False,
    logarithmic: bool = False,
) -> timeseries.Panel:
    """Series over time. Thresholds beyond the first are drawn as lines."""
    panel = timeseries.Panel().title(title).description(description).unit(unit).span(span).height(8)
    panel.datasource(SOURCE).thresholds(_thresholds(steps)).show_points(common.VisibilityMode.NEVER).line_width(1)
    panel.legend(
        common_parts.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.tooltip(
        common_parts.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    if len(steps) > 1:
        style = common_parts.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    if least is not None and not logarithmic:
        panel.min(least)
    if stacked:
        panel.stacking(common_parts.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(20)
    if logarithmic:
        panel.scale_distribution(common_parts.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))
    for place, query in enumerate(queries):
        panel.with_target(_target(query, place))
    return panel


def number(
    title: str,
    description: str,
    query: Query,
    unit: str = units.Short,
    span: int = SIXTH,
    steps: Steps = CALM,
    decimals: int | None = None,
    text: bool = False,
) -> stat.Panel:
    """One value as it is now, coloured by its thresholds; with `text` the name of the series is what is shown."""
    panel = stat.Panel().title(title).description(description).unit(unit).span(span).height(4)
    panel.datasource(SOURCE).thresholds(_thresholds(steps)).color_mode(common.BigValueColorMode.BACKGROUND)
    panel.graph_mode(common.BigValueGraphMode.NONE).no_value("none")
    panel.reduce_options(common_parts.ReduceDataOptions().calcs(["lastNotNull"]))
    if text:
        panel.text_mode(common.BigValueTextMode.NAME)
    if decimals is not None:
        panel.decimals(decimals)
    return panel.with_target(_target(query, 0, instant=True))


def grid(
    title: str, description: str, *queries: Query, unit: str, steps: Steps, span: int = WIDTH
) -> statushistory.Panel:
    """A heat map with a row for each series, coloured by thresholds."""
    panel = statushistory.Panel().title(title).description(description).unit(unit).span(span).height(9)
    panel.datasource(SOURCE).thresholds(_thresholds(steps)).show_value(common.VisibilityMode.NEVER)
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)).row_height(0.9)
    panel.max_data_points(100).legend(
        common_parts.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.tooltip(common_parts.VizTooltipOptions().mode(common.TooltipDisplayMode.SINGLE))
    for place, query in enumerate(queries):
        panel.with_target(_target(query, place))
    return panel


def spread(title: str, description: str, query: Query, unit: str = units.Seconds, span: int = HALF) -> heatmap.Panel:
    """A histogram over time; the query gives the increase of each bucket, by `le`."""
    panel = heatmap.Panel().title(title).description(description).unit(unit).span(span).height(8)
    panel.datasource(SOURCE).thresholds(_thresholds(CALM)).calculate(False)
    panel.y_axis(heatmap.YAxisConfig().unit(unit)).hide_legend()
    return panel.with_target(_target(query, 0).format(PromQueryFormat.HEATMAP))


def listing(
    title: str,
    description: str,
    *queries: Query,
    columns: Sequence[str],
    rename: Mapping[str, str],
    height: int = 9,
) -> table.Panel:
    """A table of what is now: a row for each set of labels, a column for each query; only `columns`, in this order."""
    panel = table.Panel().title(title).description(description).span(WIDTH).height(height).unit(units.Short)
    panel.datasource(SOURCE).thresholds(_thresholds(CALM)).filterable(True)
    for place, query in enumerate(queries):
        panel.with_target(_target(query, place, instant=True))
    if len(queries) > 1:
        panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={"indexByName": {name: place for place, name in enumerate(columns)}, "renameByName": dict(rename)},
        )
    )
    shown = [rename.get(name, name) for name in columns]
    pattern = f"^({'|'.join(shown)})$"
    panel.with_transformation(
        models.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"pattern": pattern}})
    )
    return panel


def column(panel: table.Panel, name: str, unit: str = "", steps: Steps | None = None, **properties: object) -> None:
    """How a column of a table looks; `steps` colour its cells."""
    values = [models.DynamicConfigValue(key, value) for key, value in properties.items()]
    if unit:
        values.append(models.DynamicConfigValue("unit", unit))
    if steps is not None:
        values.append(models.DynamicConfigValue("thresholds", _thresholds(steps).build()))
        values.append(models.DynamicConfigValue("color", {"mode": "thresholds"}))
        values.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-background"}))
    panel.override_by_name(name, values)


def words(texts: Mapping[int, tuple[str, str]]) -> list[models.ValueMap]:
    """Values that are shown as words, each with a colour."""
    options = {
        str(value): models.ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, (text, colour)) in enumerate(texts.items())
    }
    return [models.ValueMap(options=options)]


def link_to_site(title: str, field_name: str = "site") -> dict[str, object]:
    """A link in a cell or a point that opens the dashboard of its site."""
    query = "var-datasource=${datasource}&var-namespace=${namespace}&${__url_time_range}"
    return {"title": title, "url": f"/d/{UIDS['site']}?var-site=${{__data.fields.{field_name}}}&{query}"}


def frame(key: str, title: str, description: str, *variables: dashboard.QueryVariable) -> dashboard.Dashboard:
    """An empty dashboard with its variables, and links to the others."""
    board = dashboard.Dashboard(title).uid(UIDS[key]).description(description).tags(["concord"]).readonly()
    board.time("now-1h", "now").refresh("15s").timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
    board.with_variable(
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus").description("A Prometheus.")
    )
    for one in (variable("namespace", "Namespace", "concord_build_info", with_all=True), *variables):
        board.with_variable(one)
    links = dashboard.DashboardLink("Concord").type(models.DashboardLinkType.DASHBOARDS).tags(["concord"])
    return board.link(links.as_dropdown(False).include_vars(True).keep_time(True))


def variable(
    name: str, label: str, selector: str, with_all: bool = False, multi: bool = False
) -> dashboard.QueryVariable:
    """A variable whose values are those of the label of its own name."""
    asked = f"label_values({selector}, {name})"
    one = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(asked).definition(asked)
    one.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.NATURAL_ASC)
    one.description(f"The label {name} of what is shown.").multi(multi)
    return one.include_all(True).all_value(".*") if with_all else one


def text_of(board: dashboard.Dashboard) -> str:
    """The dashboard as Grafana reads it."""
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _target(query: Query, place: int, instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).datasource(SOURCE)
    target.ref_id(query.name or chr(ord("A") + place))
    if instant:
        return target.instant().format(PromQueryFormat.TABLE) if query.name else target.instant()
    return target.range()


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    listed = [models.Threshold(value=value, color=colour) for value, colour in steps.items()]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(listed)

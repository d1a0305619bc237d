"""The fleet at a glance: which site is stuck and why, whether sites agree, whether news passes between them."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, table
from grafana_foundation_sdk.models import units

from tools.dashboards.parts import (
    HALF,
    HIGH_IS_BAD,
    NAMESPACE,
    QUARTER,
    RUNBOOK,
    THIRD,
    WIDTH,
    Query,
    column,
    curve,
    frame,
    grid,
    link_to_site,
    listing,
    number,
    words,
)

_EDGE = "{{site}} from {{neighbour}}"


def build() -> dashboard.Dashboard:
    """The dashboard `Concord / Fleet`."""
    board = frame("fleet", "Concord / Fleet", "All sites of a federation: who is stuck, and why.")
    board.with_row(dashboard.Row("Which site is stuck, and why"))
    board.with_panel(_wrong()).with_panel(_sites())
    board.with_row(dashboard.Row("Now"))
    for panel in _now():
        board.with_panel(panel)
    board.with_row(dashboard.Row("Learning"))
    for curves in _learning():
        board.with_panel(curves)
    board.with_row(dashboard.Row("Between sites"))
    board.with_panel(
        grid(
            "Staleness by edge",
            "How old the news is that each site has of each neighbour: a row for each direction of an edge.",
            Query(f"max by (namespace, site, neighbour) (concord_staleness_seconds{{{NAMESPACE}}})", _EDGE),
            unit=units.Seconds,
            steps={None: "green", 10: "yellow", 60: "orange", 120: "red"},
        )
    )
    for curves in _exchange():
        board.with_panel(curves)
    board.with_row(dashboard.Row("Topology and fleet process"))
    for panel in _topology():
        board.with_panel(panel)
    return board


def _wrong() -> table.Panel:
    alerts = f'ALERTS{{alertname=~"Concord.+", {NAMESPACE}'
    by = "max by (namespace, site, neighbour, reason, alertname)"
    expr = (
        "sort_desc(\n"
        f'  4 * {by} ({alerts}, alertstate="firing", severity="critical"}})\n'
        f'  or 3 * {by} ({alerts}, alertstate="firing", severity="warning"}})\n'
        f'  or 2 * {by} ({alerts}, alertstate="pending", severity="critical"}})\n'
        f'  or 1 * {by} ({alerts}, alertstate="pending", severity="warning"}})\n'
        f'  or on (namespace, site) 0 * max by (namespace, site) (up{{job="concord", site!="", {NAMESPACE}}})\n'
        ")"
    )
    panel = listing(
        "What is wrong with each site, worst first",
        "Alerts of each site, firing or about to. A click on an alert opens its runbook, one on a site its dashboard. "
        "Needs the rules of Concord in this Prometheus; without them, all seems well.",
        Query(expr, name="A"),
        columns=["Value", "site", "alertname", "neighbour", "reason", "namespace"],
        rename={"Value": "how bad", "alertname": "alert"},
    )
    states = {
        4: ("critical", "red"),
        3: ("warning", "orange"),
        2: ("critical soon", "semi-dark-red"),
        1: ("warning soon", "yellow"),
        0: ("well", "green"),
    }
    column(panel, "how bad", steps={None: "green"}, mappings=words(states))
    column(panel, "alert", links=[{"title": "Runbook", "url": RUNBOOK, "targetBlank": True}])
    column(panel, "site", links=[link_to_site("Open this site")])
    return panel


def _sites() -> table.Panel:
    def most(metric: str, extra: str = "") -> str:
        return f"max by (namespace, site) ({metric}{{{NAMESPACE}{extra}}})"

    panel = listing(
        "All sites",
        "Where each site stands now. Phase: 0 joins, 1 trains, 2 has finished.",
        Query(f'min by (namespace, site) (up{{job="concord", site!="", {NAMESPACE}}})', name="up"),
        Query(
            f"{most('concord_phase', ', phase=~`training`')} + 2 * {most('concord_phase', ', phase=~`finished`')}",
            name="phase",
        ),
        Query(most("concord_rounds_total"), name="round"),
        Query(most("concord_steps_per_second"), name="steps"),
        Query(most("concord_metric_value", ", metric=`accuracy`"), name="accuracy"),
        Query(most("concord_staleness_seconds"), name="stale"),
        Query(f"avg by (namespace, site) (concord_consensus_distance{{{NAMESPACE}}})", name="apart"),
        Query(f"time() - {most('concord_checkpoint_timestamp_seconds')}", name="saved"),
        Query(most("concord_model_version"), name="model"),
        columns=[
            "site",
            *(f"Value #{name}" for name in ("up", "phase", "round", "steps", "accuracy", "stale", "apart", "saved")),
            "Value #model",
            "namespace",
        ],
        rename={
            "Value #up": "up",
            "Value #phase": "phase",
            "Value #round": "round",
            "Value #steps": "steps per second",
            "Value #accuracy": "accuracy",
            "Value #stale": "oldest news",
            "Value #apart": "consensus distance",
            "Value #saved": "checkpoint age",
            "Value #model": "model served",
        },
        height=10,
    )
    column(panel, "site", links=[link_to_site("Open this site")])
    column(panel, "up", steps={None: "red", 1: "green"}, mappings=words({0: ("down", "red"), 1: ("up", "green")}))
    phases = {0: ("joining", "blue"), 1: ("training", "green"), 2: ("finished", "purple")}
    column(panel, "phase", steps={None: "green"}, mappings=words(phases))
    column(panel, "accuracy", units.PercentUnit)
    column(panel, "oldest news", units.Seconds, steps={None: "green", 60: "orange", 120: "red"})
    column(panel, "consensus distance", units.PercentUnit)
    column(panel, "checkpoint age", units.Seconds, steps={None: "green", 900: "orange"})
    return panel


def _now() -> list[object]:
    return [
        number(
            "Sites up",
            "Sites whose processes all answer.",
            Query(f'sum(min by (namespace, site) (up{{job="concord", site!="", {NAMESPACE}}}))'),
        ),
        number(
            "Sites down",
            "Sites of which a process does not answer.",
            Query(f'count(min by (namespace, site) (up{{job="concord", site!="", {NAMESPACE}}}) == 0) or vector(0)'),
            steps=HIGH_IS_BAD,
        ),
        *(
            number(f"Sites {phase}", meaning, Query(f'sum(concord_phase{{phase="{phase}", {NAMESPACE}}})'))
            for phase, meaning in (
                ("joining", "Sites that wait for what their neighbours know."),
                ("training", "Sites that train."),
                ("finished", "Sites that have done what the job asks."),
            )
        ),
        number(
            "Circuits not closed",
            "Edges over which calls fail so often that they are tried now and then only.",
            Query(f'count(concord_circuit_state{{state="closed", {NAMESPACE}}} == 0) or vector(0)'),
            steps=HIGH_IS_BAD,
        ),
    ]


def _learning() -> list[object]:
    return [
        curve(
            "Metrics of all sites",
            "What each site's last evaluation said, by the metrics of the task. Sites that agree lie together.",
            Query(f"max by (namespace, site, metric) (concord_metric_value{{{NAMESPACE}}})", "{{site}} {{metric}}"),
            least=None,
        ),
        curve(
            "Loss of all sites",
            "Training loss. A site with privacy tells none.",
            Query(f"max by (namespace, site) (concord_loss{{{NAMESPACE}}})"),
            least=None,
        ),
        curve(
            "Consensus distance",
            "How far a site's model is from its neighbours', as a share of its own size; mean over its edges. It "
            "falls, or stays where noise holds it.",
            Query(f"avg by (namespace, site) (concord_consensus_distance{{{NAMESPACE}}})"),
            unit=units.PercentUnit,
            span=THIRD,
        ),
        curve(
            "Rounds",
            "Rounds each site has done. A line that is flat is a site that stands still.",
            Query(f"max by (namespace, site) (concord_rounds_total{{{NAMESPACE}}})"),
            span=THIRD,
        ),
        curve(
            "Steps per second",
            "Local steps, pace included.",
            Query(f"max by (namespace, site) (concord_steps_per_second{{{NAMESPACE}}})"),
            span=THIRD,
        ),
    ]


def _exchange() -> list[object]:
    return [
        curve(
            "Refused and rejected updates",
            "Updates per second that a site did not let in (refused), or that a neighbour did not (rejected).",
            Query(
                f"sum by (reason) (rate(concord_updates_refused_total{{{NAMESPACE}}}[$__rate_interval]))",
                "refused: {{reason}}",
            ),
            Query(
                f"sum by (reason) (rate(concord_updates_rejected_total{{{NAMESPACE}}}[$__rate_interval]))",
                "rejected: {{reason}}",
            ),
            unit=units.RequestsPerSecond,
        ),
        curve(
            "Bytes of updates",
            "Sent and received by all sites, per second.",
            Query(f"sum(rate(concord_bytes_sent_total{{{NAMESPACE}}}[$__rate_interval]))", "sent"),
            Query(f"sum(rate(concord_bytes_received_total{{{NAMESPACE}}}[$__rate_interval]))", "received"),
            unit=units.BytesPerSecondIEC,
        ),
        grid(
            "Circuits",
            "State of the way from each site to each neighbour: 0 closed (good), 1 half open, 2 open.",
            Query(
                f'max by (namespace, site, neighbour) (2 * concord_circuit_state{{state="open", {NAMESPACE}}}\n'
                f'  + ignoring (state) concord_circuit_state{{state="half_open", {NAMESPACE}}})',
                "{{site}} to {{neighbour}}",
            ),
            unit=units.Short,
            steps={None: "green", 1: "yellow", 2: "red"},
            span=HALF,
        ),
        curve(
            "Time to deliver",
            "From the first attempt until the neighbour has stored an update: the median and the slowest hundredth.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le) (rate(concord_delivery_seconds_bucket{{{NAMESPACE}}}"
                    "[$__rate_interval])))",
                    name,
                )
                for share, name in ((0.5, "p50"), (0.99, "p99"))
            ),
            unit=units.Seconds,
        ),
    ]


def _one_ended() -> str:
    """How many edges are told at one end only: those that are not there once site and neighbour have changed places."""
    edges = f"max by (namespace, site, neighbour) (concord_edge_epoch{{{NAMESPACE}}})"
    turned = edges
    for source, target in (("site", "other"), ("neighbour", "site"), ("other", "neighbour")):
        turned = f'label_replace({turned}, "{target}", "$1", "{source}", "(.*)")'
    return f"count({edges}\n  unless on (namespace, site, neighbour) {turned}) or vector(0)"


def _topology() -> list[object]:
    return [
        number(
            "Versions of the membership document",
            "How many different versions are in force at this moment. More than one for longer than two minutes means "
            "that a site does not follow.",
            Query(f'count(count_values("version", concord_topology_version{{{NAMESPACE}}}))'),
            steps={None: "green", 2: "orange"},
            span=QUARTER,
        ),
        number(
            "Edges with one end only",
            "Edges that one site knows and the other does not.",
            Query(_one_ended()),
            steps=HIGH_IS_BAD,
            span=QUARTER,
        ),
        number(
            "Leaders of the fleet",
            "Processes that write the membership document; one, where `concord fleet` runs.",
            Query(f"sum(concord_fleet_leading{{{NAMESPACE}}})"),
            steps={None: "red", 1: "green", 2: "red"},
            span=QUARTER,
        ),
        number(
            "Problems of the fleet",
            "What the fleet cannot mend by itself.",
            Query(f"max(concord_fleet_problems{{{NAMESPACE}}})"),
            steps=HIGH_IS_BAD,
            span=QUARTER,
        ),
        curve(
            "Members, ready and waiting",
            "Sites in the membership document, those that are ready, and those that wait to become members.",
            Query(f"max(concord_fleet_members{{{NAMESPACE}}})", "members"),
            Query(f"max(concord_fleet_sites_ready{{{NAMESPACE}}})", "ready"),
            Query(f"max(concord_fleet_sites_waiting{{{NAMESPACE}}})", "waiting"),
        ),
        curve(
            "Neighbours of each site",
            "Edges that each site has.",
            Query(f"max by (namespace, site) (concord_topology_neighbours{{{NAMESPACE}}})"),
        ),
        curve(
            "Requests without proof, and too many",
            "Requests at the exchange doors whose identity was not proven or that came too often, and connections "
            "turned away, per second.",
            Query(f"sum(rate(concord_requests_unproven_total{{{NAMESPACE}}}[$__rate_interval]))", "unproven"),
            Query(f"sum(rate(concord_requests_too_often_total{{{NAMESPACE}}}[$__rate_interval]))", "too often"),
            Query(
                f"sum by (reason) (rate(concord_connections_turned_away_total{{{NAMESPACE}}}[$__rate_interval]))",
                "connections: {{reason}}",
            ),
            unit=units.RequestsPerSecond,
            span=WIDTH,
        ),
    ]

"""A board of noria.boards as a dashboard of Grafana, over the metrics that `noria metrics` serves.

Grafana, "Dashboard JSON model": panels stand on a grid of 24 columns; the data source is a variable, chosen at import.
"""

from typing import Any

from noria.boards import Board, Line, Panel, Row

COLUMNS, HEIGHT = 24, 8
SOURCE = {"type": "prometheus", "uid": "${source}"}
VARIABLE = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
UNITS = {"": "short", "seconds": "s", "ratio": "percentunit"}


def dashboard(board: Board) -> dict[str, Any]:
    return {
        "uid": board.name[:40],
        "title": board.title,
        "tags": ["noria"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": [VARIABLE]},
        "annotations": {"list": [_deployments(board.model)] if board.model else []},
        "panels": _panels(board),
    }


def expressions(board: Board) -> list[str]:
    """Every query of the dashboard."""
    shown = dashboard(board)
    targets = [target["expr"] for panel in shown["panels"] for target in panel.get("targets", [])]
    return [*targets, *(annotation["expr"] for annotation in shown["annotations"]["list"])]


def _deployments(model: str) -> dict[str, Any]:
    return {
        "name": "Deployments",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f'changes(noria_live_version{{model="{model}"}}[5m]) > 0',
        "titleFormat": "another version is live",
        "step": "60s",
    }


def _panels(board: Board) -> list[dict[str, Any]]:
    panels, top = [_alarms(board)], 4
    for row in board.rows:
        panels += _row(row, top)
        top += 1 + HEIGHT * -(-len(row.panels) // _abreast(row))
    return [{"id": number, **panel} for number, panel in enumerate(panels, start=1)]


def _abreast(row: Row) -> int:
    return min(len(row.panels), 4)


def _row(row: Row, top: int) -> list[dict[str, Any]]:
    width = COLUMNS // _abreast(row)
    heading = {"type": "row", "title": row.heading, "gridPos": _place(0, top, COLUMNS, 1), "panels": []}
    return [
        heading,
        *(
            _graph(panel)
            | {"gridPos": _place(width * (n % _abreast(row)), top + 1 + HEIGHT * (n // _abreast(row)), width, HEIGHT)}
            for n, panel in enumerate(row.panels)
        ),
    ]


def _place(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def _alarms(board: Board) -> dict[str, Any]:
    names = "|".join(board.alarms)
    return {
        "type": "stat",
        "title": "Alarms that are raised",
        "datasource": SOURCE,
        "gridPos": _place(0, 0, COLUMNS, 4),
        "options": {"textMode": "name", "colorMode": "background", "reduceOptions": {"calcs": ["lastNotNull"]}},
        "fieldConfig": {"defaults": {"noValue": "none", "color": {"mode": "fixed", "fixedColor": "red"}}},
        "targets": [_target(f'noria_alarm_raised{{alarm=~"{names}"}} == 1', "{{alarm}}", 0)],
    }


def _graph(panel: Panel) -> dict[str, Any]:
    field: dict[str, Any] = {"unit": UNITS[panel.unit]}
    if panel.limit is not None:
        beyond, within = "red", "transparent"
        base, then = (within, beyond) if panel.limited == "above" else (beyond, within)
        steps = [{"value": None, "color": base}, {"value": panel.limit, "color": then}]
        field |= {
            "thresholds": {"mode": "absolute", "steps": steps},
            "custom": {"thresholdsStyle": {"mode": "line+area"}},
        }
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": field, "overrides": []},
        "targets": [_target(_expression(line), line.legend, number) for number, line in enumerate(panel.lines)],
    }


def _target(expr: str, legend: str, number: int) -> dict[str, Any]:
    return {"refId": f"Q{number}", "datasource": SOURCE, "expr": expr, "legendFormat": legend}


def _expression(line: Line) -> str:
    return f"{line.series.selector} / {line.of.selector}" if line.of else line.series.selector

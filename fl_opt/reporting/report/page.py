"""The page itself: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fl_opt import __version__
from fl_opt.errors import ConfigError
from fl_opt.reporting.console import headline
from fl_opt.reporting.reader import Run
from fl_opt.reporting.report.about_runs import charts
from fl_opt.reporting.report.names import run_names
from fl_opt.reporting.report.svg import draw_svg
from fl_opt.reporting.report.tables import changed_settings, clients, comparison
from fl_opt.reporting.report.tiles import tiles


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write a report about one run, or about several side by side.

    Parameters
    ----------
    runs : sequence of Run
    path : Path
        Of the HTML file; its folder is made if it is not there.

    Raises
    ------
    ConfigError
        If there is no run.
    """
    page = render_report(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def render_report(runs: Sequence[Run]) -> str:
    """Return the page; see :func:`write_report`."""
    if not runs:
        raise ConfigError("a report needs at least one run")
    names = run_names(runs)
    environment = Environment(
        loader=PackageLoader("fl_opt.reporting.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["draw"] = draw_svg
    return environment.get_template("report.html.j2").render(
        title=names[0] if len(runs) == 1 else f"{len(runs)} runs",
        version=__version__,
        runs=[
            {
                "name": name,
                "headline": headline(run.settings, run.summary.rounds_planned),
                "summary": run.summary,
                "tiles": tiles(run),
                "clients": clients(run),
            }
            for name, run in zip(names, runs, strict=True)
        ],
        comparison=comparison(runs, names) if len(runs) > 1 else None,
        charts=charts(runs, names),
        settings=changed_settings(runs, names),
    )

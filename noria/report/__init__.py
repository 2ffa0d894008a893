"""Pages for people, each one self-contained HTML file: a monitor run, and what the contract says of an upload."""

from noria.report.run import render
from noria.report.upload import render_contract

__all__ = ["render", "render_contract"]

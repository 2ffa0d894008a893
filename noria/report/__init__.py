"""Pages for people: a monitor run as one self-contained HTML file."""

from noria.report.run import render

__all__ = ["render"]

"""The report of a run: one HTML file to read, one CSV file to compute with. Imports no torch."""

from autoprune.report.page import write_report
from autoprune.report.rows import write_csv

__all__ = ["write_csv", "write_report"]

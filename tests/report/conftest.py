"""The report in a real browser, for every file of tests here."""

from tests.report.test_report import browser, visit

__all__ = ["browser", "visit"]

"""The report of a run: one HTML file to read, one CSV file to compute with.

`page` puts the page together from `sections`; scripts and styles lie in `assets`. Everything comes from
`front.json`, but for rows of data, which the run keeps in `answer_changes.json`. `compared` shows several
runs on one page. Imports `run`, `strategy`, `space`, `tasks` and `core`, and no torch.
Begin with `page`.
"""

from autoprune.report.page import REPORT_TITLE, check_own_page, write_report
from autoprune.report.trial_rows import write_csv

__all__ = ["REPORT_TITLE", "check_own_page", "write_csv", "write_report"]

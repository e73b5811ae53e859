"""Several runs on one page: their fronts in one chart, what differs in their settings, and equal limits.

`compared_runs` reads them and says what cannot be compared; `equal_limits` and `differences` are the tables;
`page` and `lines` show them. Begin with `page`.
"""

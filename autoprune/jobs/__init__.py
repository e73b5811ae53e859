"""Searches as jobs of a Ray cluster: sent there, run there, kept in a storage root, fetched from it.

`submission` says what is sent and what runs; `contents` and `storage_root` carry files by their hash;
`cluster` speaks Ray's Jobs API; `driver` is what runs on the cluster, and `mirror` copies its run folder to
the root as the run goes on. Imports `run` and below, and Ray when a cluster is spoken to. No torch. Begin
with `submission`.
"""

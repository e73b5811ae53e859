"""OpenVINO: packed integers as constants that the runtime computes with as they are."""

"""The kind of task that a model's config tells of."""

from __future__ import annotations

from typing import Any

import transformers

from autoprune.models.checkpoint import config_of
from autoprune.tasks.kinds import (
    IMAGE_CLASSIFICATION,
    KINDS,
    TEXT_CLASSIFICATION,
    TEXT_REGRESSION,
    TaskKind,
)


def kind_of(source: str, revision: str | None = None) -> TaskKind:
    """The kind of task that a model's config tells of; text classification where it has no head.

    Raises:
        AutopruneError: when there is no such model, or as `config_of` raises.
    """
    config = config_of(source, revision)
    head = str((getattr(config, "architectures", None) or [""])[0])
    for kind in KINDS:
        if kind.architectures and head.endswith(kind.architectures):
            return kind
    if _is_of_pictures(config):
        return IMAGE_CLASSIFICATION
    single = head.endswith("ForSequenceClassification") and config.num_labels == 1
    is_regression = single or getattr(config, "problem_type", None) == "regression"
    return TEXT_REGRESSION if is_regression else TEXT_CLASSIFICATION


def _is_of_pictures(config: Any) -> bool:
    """Whether transformers has a head for pictures for a type of model, and none for text."""
    auto = transformers.models.auto.modeling_auto
    kind = config.model_type
    return (
        kind in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
        and kind not in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    )

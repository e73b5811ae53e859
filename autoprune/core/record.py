"""JSON files as typed, checked data: base of their records, and one error for all that is wrong in a file.

Imports pydantic, which takes a fifth of a second: what answers at once imports this when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic_core import core_schema

from autoprune.core.errors import AutopruneError

Model = TypeVar("Model", bound=pydantic.BaseModel)


_KIND = "Value error, "
"""What pydantic puts before the message of a `ValueError`."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("text is needed")
    return value


AnyText = Annotated[str, pydantic.PlainValidator(_text)]
"""Text of any characters. A path that is no UTF-8 has lone surrogates, which pydantic refuses in a `str`."""


class Record(pydantic.BaseModel):
    """What a JSON file, or an object in it, says.

    Fields that a later version wrote are kept as they are. `as_json` has what the file had or what was given,
    so that a field of before is not made up when a file is written again.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="constants")

    def as_json(self) -> dict[str, Any]:
        """The fields that were given, as plain data."""
        return self.model_dump(mode="json", exclude_unset=True)


def read_by(
    parse: Callable[[object], object], write: Callable[[Any], object] | None = None
) -> pydantic.GetPydanticSchema:
    """A field that one function reads and another writes; its type is a class that pydantic need not know."""
    written = None if write is None else core_schema.plain_serializer_function_ser_schema(write)
    schema = core_schema.no_info_plain_validator_function(parse, serialization=written)
    return pydantic.GetPydanticSchema(lambda source, handler: schema)


def checked(model: type[Model], data: object, name: str) -> Model:
    """Data of a file as a record of it.

    Args:
        name: of the file, for the error.

    Raises:
        AutopruneError: naming every field that is wrong.
    """
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        wrong = [
            ": ".join(filter(None, [".".join(map(str, problem["loc"])), problem["msg"].removeprefix(_KIND)]))
            for problem in error.errors()
        ]
        raise AutopruneError(f"{name} cannot be read:\n  " + "\n  ".join(wrong)) from error

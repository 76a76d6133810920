# SPDX-License-Identifier: Apache-2.0
"""What a plug-in says that lies: that all is well, by the form of the answer that its contract wants."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

#: What the facts of a copy, a clone or a sealed volume look like.
INVENTED = {"identity": "0:0", "manifest": "sha256:0", "contents": "sha256:0", "files": 0, "bytes": 0, "changed": ""}
_PLAIN: Mapping[Any, Any] = {type(None): None, str: "", bool: True, float: 0.0}
_GENERIC: Mapping[Any, Callable[[], Any]] = {Mapping: dict, Sequence: tuple, frozenset: frozenset}


class NoLieError(Exception):
    """There is nothing that could be said without doing it."""


def told(asked: Callable[..., Any]) -> Any:  # noqa: ANN401  # whatever the contract wants
    """What a lie answers where this method is asked.

    Raises:
        NoLieError: the answer cannot be made up.
    """
    wanted = get_type_hints(asked).get("return")
    origin = get_origin(wanted) or wanted
    if origin in (Union, types.UnionType) and type(None) in get_args(wanted):
        return None
    for forms in (_PLAIN, _GENERIC):
        for form, answer in forms.items():
            if origin is form or origin is getattr(form, "__origin__", form):
                return answer() if forms is _GENERIC else answer
    raise NoLieError

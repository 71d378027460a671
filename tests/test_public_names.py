"""The names that users import; a change here is a change for them."""

from __future__ import annotations

import inspect

import accel

PUBLIC = [
    "AccelError", "CompileError", "Machine", "OptionError", "StrictError", "Unsupported", "backend", "explain", "lowering", "machines", "profile", "sweep",
]  # fmt: skip


def test_public_names_are_these():
    assert accel.__all__ == PUBLIC


def test_every_public_name_exists_and_is_documented():
    assert all(inspect.getdoc(getattr(accel, name)) for name in PUBLIC)


def test_functions_are_not_hidden_by_modules_of_their_name():
    import accel.backend
    import accel.explain

    assert all(callable(getattr(accel, name)) for name in ("backend", "explain", "lowering", "machines", "profile", "sweep"))


def test_unknown_name_is_an_attribute_error():
    assert not hasattr(accel, "no_such_name")

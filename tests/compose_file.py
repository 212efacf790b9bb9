"""docker-compose.yml as Compose reads it: variables filled in, and the services of a profile."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import jsonschema
from places import PROJECT
from ruamel.yaml import YAML

TEXT: Final = (PROJECT / "docker-compose.yml").read_text(encoding="utf-8")
PROFILES: Final = ("", "immich", "web", "inspect", "observability", "ngc", "gpu", "mt-photos", "s3", "models")
"""The default, and every profile of the file."""
STARTED_BY_NAME: Final = {"ngc": "gateway", "gpu": "gpu", "mt-photos": "mt-photos"}
"""Profiles whose service runs in the place of the default one, and is started by its name."""

_VARIABLE: Final = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<how>:[-+])(?P<text>[^${}]*))?\}")


def variables() -> dict[str, str]:
    """Return the variables that the file asks for, with their defaults."""
    found: dict[str, str] = {}
    for match in _VARIABLE.finditer(TEXT):
        if name := match["name"]:
            default = match["text"] if match["how"] == ":-" else ""
            if match["how"] != ":+":
                assert found.setdefault(name, default) == default, f"{name} has two defaults"
    return found


def interpolated(value: Any, environment: Mapping[str, str]) -> Any:
    """Return *value* with its variables filled in, as Compose does: ``${A}``, ``${A:-default}``, ``${A:+instead}``."""
    if isinstance(value, dict):
        return {key: interpolated(one, environment) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, environment) for one in value]
    return _VARIABLE.sub(lambda match: _filled(match, environment), value) if isinstance(value, str) else value


def _filled(match: re.Match[str], environment: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    given = environment.get(match["name"], "")
    if match["how"] == ":+":
        return match["text"] if given else ""
    return given or (match["text"] or "")


def loaded(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the whole file with the variables of *environment*."""
    result: dict[str, Any] = interpolated(YAML(typ="safe").load(TEXT), environment or {})
    return result


def selected(profile: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the file with only those services that run with *profile*."""
    whole = loaded(environment)
    running = {
        name: service
        for name, service in whole["services"].items()
        if not (wanted := service.get("profiles")) or profile in wanted
    }
    if instead := STARTED_BY_NAME.get(profile):
        del running["immich-triton"]
        assert instead in running
    return {**whole, "services": running}


def complaints(document: Mapping[str, Any]) -> list[str]:
    """Return what the Compose specification's JSON schema has against *document*."""
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]

"""docker-compose.yml: valid for every profile, careful with rights and secrets, and what it names exists."""

from __future__ import annotations

import asyncio
import copy
import re
import shlex
from pathlib import Path
from typing import Any, Final

import compose_file
import pytest
from compose_file import PROFILES, complaints, loaded, selected, variables
from dockerfile import Dockerfile
from mitmproxy.options import Options
from mitmproxy.tools import cmdline
from mitmproxy.tools.dump import DumpMaster
from places import PROJECT

from immich_triton.cli import health, run_options
from immich_triton.core.options import Option
from immich_triton.ml.settings import OPTIONS as GATEWAY_OPTIONS
from immich_triton.ml.settings import Settings
from immich_triton.web.settings import OPTIONS as SITE_OPTIONS
from immich_triton.web.settings import Settings as SiteSettings

SERVICES: Final[dict[str, Any]] = loaded()["services"]
OURS: Final = ("immich-triton", "models", "immich-web", "inspect", "gateway", "gpu", "mt-photos")
"""Services that run an image of the project's own Dockerfile."""
EMBEDDED: Final = ("immich-triton", "inspect", "gpu", "mt-photos")
ROOT_AT_FIRST: Final = {
    "immich-server": "Immich's own image",
    "immich-machine-learning": "Immich's own image",
    "database": "gives itself another user after it has made its folder",
    "redis": "gives itself another user after it has made its folder",
    "juicefs-metadata": "gives itself another user after it has made its folder",
    "juicefs": "a mount in the host's name space takes root",
}
"""Images of others that start as root, with the reason."""
EXAMPLE: Final = (PROJECT / ".env.example").read_text(encoding="utf-8")


def explained() -> dict[str, str]:
    """Return the variables of .env.example with their values."""
    return dict(re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.MULTILINE))


def secrets() -> list[str]:
    """Return the variables whose comment begins with SECRET; one comment may stand before several."""
    return [
        name
        for block in re.findall(r"^# SECRET.*\n(?:#.*\n)*((?:\w+=.*\n)+)", EXAMPLE, re.MULTILINE)
        for name in re.findall(r"^(\w+)=", block, re.MULTILINE)
    ]


# Valid


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_by_the_schema_of_compose(profile: str) -> None:
    assert complaints(selected(profile)) == []


def test_the_schema_finds_what_is_wrong() -> None:
    wrong = copy.deepcopy(loaded())
    wrong["services"]["immich-triton"]["no_such_key"] = 1
    assert any("no_such_key" in complaint for complaint in complaints(wrong))


def test_the_profiles_are_those_of_the_file_and_are_documented() -> None:
    used = {profile for service in SERVICES.values() for profile in service.get("profiles", [""])}
    assert used == {*PROFILES}
    guide = (PROJECT / "docs/deploy.md").read_text(encoding="utf-8")
    assert [profile for profile in PROFILES if profile and f"`{profile}`" not in guide] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_service_waits_for_runs_with_it_and_can_be_healthy(profile: str) -> None:
    running = selected(profile)["services"]
    for name, service in running.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            assert other in running or how.get("required") is False, (name, other)
            if how["condition"] == "service_healthy":
                assert not SERVICES[other]["healthcheck"].get("disable"), (name, other)


def test_nobody_waits_for_himself() -> None:
    waits = {name: [*service.get("depends_on", {})] for name, service in SERVICES.items()}
    while ready := [name for name, others in waits.items() if not set(others) & waits.keys()]:
        for name in ready:
            del waits[name]
    assert waits == {}


def test_volumes_and_networks_are_declared_and_used() -> None:
    whole = loaded()
    named = {str(one).split(":")[0] for s in SERVICES.values() for one in s.get("volumes", []) if isinstance(one, str)}
    assert {name for name in named if not name.startswith((".", "/"))} == whole["volumes"].keys()
    assert {network for service in SERVICES.values() for network in service["networks"]} == whole["networks"].keys()


# Careful


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded_checked_and_pinned(name: str) -> None:
    service = SERVICES[name]
    assert {"mem_limit", "cpus", "pids_limit", "healthcheck", "restart"} <= service.keys()
    if name != "models":
        assert service["healthcheck"].get("test") or service["healthcheck"] == {"disable": False}
    assert service["security_opt"]
    tag = service["image"].partition("/")[2] or service["image"]
    if "build" not in service:
        assert re.search(r":[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?$", tag), "a release, not what is newest"


@pytest.mark.parametrize("name", OURS)
def test_ours_have_no_rights_and_write_only_into_volumes_and_tmp(name: str) -> None:
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"], service.get("cap_add")) == (True, ["ALL"], None)
    assert service["security_opt"] == ["no-new-privileges:true"]
    (tmp,) = service["tmpfs"]
    # Docker's default is noexec, under which Triton cannot start the processes of its models.
    folder, _, options = tmp.partition(":")
    assert folder == "/tmp"  # noqa: S108 - inside
    assert "exec" in options.split(",")
    assert service["ulimits"]["nofile"] > 2 * Settings().max_connections
    assert "user" not in service, "the image has its own"


def test_who_else_starts_as_root_has_a_reason() -> None:
    root = {name for name, service in SERVICES.items() if name not in OURS and "user" not in service}
    assert root == ROOT_AT_FIRST.keys()


def test_only_the_site_is_published_and_pages_for_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "immich-web": ["0.0.0.0:2284:2284"],
        "inspect": ["127.0.0.1:8081:8081"],
        "grafana": ["127.0.0.1:3000:3000"],
        "mt-photos": ["127.0.0.1:8060:8060"],
    }


def test_stock_is_out_of_reach_but_for_the_gateway() -> None:
    assert SERVICES["immich-machine-learning"]["networks"] == ["stock"]
    beside = {name for name, service in SERVICES.items() if "stock" in service["networks"]}
    assert beside == {"immich-machine-learning", *EMBEDDED, "gateway", "models"}


# Secrets and variables


def test_every_variable_is_explained_with_its_default() -> None:
    asked = variables()
    example = explained()
    assert example.pop("COMPOSE_PROFILES") == ""
    assert example == asked
    for name in asked:
        assert re.search(rf"^#.*\n(?:\w+=.*\n)*{name}=", EXAMPLE, re.MULTILINE), f"{name} has no comment"


def test_a_secret_is_in_no_command_and_has_no_default() -> None:
    names = secrets()
    assert {"DB_PASSWORD", "IMMICH_API_KEY", "GRAFANA_PASSWORD", "S3_SECRET_KEY", "WEB_DATABASE_URL"} <= {*names}
    assert {name for name in names if explained()[name]} == set()
    planted = {name: f"secret-{name}" for name in names}
    whole = loaded(planted)
    seen = set()
    for name, service in whole["services"].items():
        environment = service.pop("environment", {})
        assert "secret-" not in str(service), name
        seen |= {value.removeprefix("secret-") for value in environment.values() if value.startswith("secret-")}
    assert seen == {*names}, "each reaches a container, by its environment"
    assert ".env\n" in (PROJECT / ".gitignore").read_text(encoding="utf-8")


# What it names exists


def known_options() -> Options:
    """Return mitmdump's options, those of its own addons included."""

    async def made() -> Options:
        return DumpMaster(Options()).options

    return asyncio.run(made())


def mitmproxy_options(arguments: list[str], own: tuple[Option, ...]) -> dict[str, str]:
    """Return the options that mitmdump would set; fails on one that it does not know, or whose value is not allowed."""
    options = known_options()
    parsed = cmdline.mitmdump(options).parse_args(arguments)
    given = dict(setting.split("=", 1) for setting in parsed.setoptions)
    declared = {option.name: option for option in own}
    for name, value in given.items():
        assert name in declared or name in options, name
        if name in declared and not declared[name].kind.hidden and declared[name].kind.type is str:
            declared[name].kind.read(name, value)
    for script in parsed.scripts or []:
        assert (PROJECT / script).is_file()
    return given


def test_the_profile_for_a_card_computes_there_or_does_not_start() -> None:
    card, cpu = (SERVICES[name]["command"] for name in ("gpu", "immich-triton"))
    assert card == ["--gpu", *cpu]
    (device,) = SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert {"compute", "utility"} <= {*device["capabilities"]}, "CUDA, and nvidia-smi"


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("key", ["", "a key"])
def test_the_embedded_triton_is_started_with_options_that_exist(name: str, key: str) -> None:
    arguments = loaded({"IMMICH_API_KEY": key})["services"][name]["command"]
    parsed = run_options.parse(["--host", "0.0.0.0", *arguments])
    given = mitmproxy_options(
        [one for one in shlex.split(parsed.options) if one not in ("--web-host", "0.0.0.0")], GATEWAY_OPTIONS
    )
    assert bool(given) == (bool(key) and name != "inspect")
    assert (parsed.port, parsed.metrics_port) == (3004, 9464)


@pytest.mark.parametrize("key", ["", "a key"])
def test_mt_photos_is_answered_over_the_same_triton_where_its_metrics_and_health_are_asked(key: str) -> None:
    service = loaded({"MT_PHOTOS_KEY": key, "MT_PHOTOS_CLIP": "small_visual"})["services"]["mt-photos"]
    parts = run_options.read(["--host", "0.0.0.0", "--models", "/models", *service["command"]])
    assert parts.mt_photos is not None
    assert (parts.mt_photos.host, parts.mt_photos.clip) == ("0.0.0.0", "small_visual")
    assert parts.mt_photos.key == ("env:MT_PHOTOS_KEY" if key else "")
    assert service["environment"]["MT_PHOTOS_KEY"] == key
    assert service["ports"][0].endswith(f":{parts.mt_photos.port}")
    assert parts.mt_photos.metrics == "0.0.0.0:9466"
    plain = loaded()["services"]["immich-triton"]
    assert service["command"][: len(plain["command"])] == plain["command"], "but for MT-Photos it is the same"


@pytest.mark.parametrize(("name", "own"), [("immich-web", SITE_OPTIONS), ("gateway", GATEWAY_OPTIONS)])
def test_mitmdump_is_started_with_options_that_exist(name: str, own: tuple[Option, ...]) -> None:
    filled = {"IMMICH_API_KEY": "a key", "WEB_DATABASE_URL": "postgresql://a"}
    assert mitmproxy_options(loaded(filled)["services"][name]["command"], own)
    mitmproxy_options(SERVICES[name]["command"], own)


@pytest.mark.parametrize("name", OURS)
def test_health_is_asked_with_options_that_exist_before_a_stop_is_patient_enough(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = SERVICES[name]
    if "test" in service["healthcheck"]:
        kind, program, command, *arguments = service["healthcheck"]["test"]
        assert (kind, program, command) == ("CMD", "immich-triton", "health")
        monkeypatch.setattr(health, "get", lambda url, _timeout: url)
        monkeypatch.setattr(health, "metrics_address", lambda _folder: "127.0.0.1:9464")
        assert health.main(arguments) == 0
    drains = SiteSettings().drain_timeout if name == "immich-web" else Settings().drain_timeout
    assert int(service["stop_grace_period"].removesuffix("s")) > drains


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_what_is_built_exists(name: str) -> None:
    build = SERVICES[name]["build"]
    file = Dockerfile(PROJECT / build["dockerfile"])
    assert build["context"] == "."
    assert build.get("target", "") in {"", *file.stages}
    for argument, value in build.get("args", {}).items():
        assert argument in file.arguments
        assert (PROJECT / value).is_file()
    targets = [str(volume).split(":")[1] for volume in SERVICES[name].get("volumes", [])]
    if name in OURS:
        assert {*targets} <= {*file.volumes}, "a volume takes its owner from the image"


def test_what_is_mounted_from_the_clone_exists() -> None:
    sources = [
        str(volume).split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if isinstance(volume, str) and volume.startswith("./")
    ]
    missing = [source for source in sources if not (PROJECT / source).exists()]
    assert missing == ["./postgres"], "only the database's folder is made at the first start"
    (configuration,) = [one for one in SERVICES["prometheus"]["command"] if one.startswith("--config.file=")]
    assert (PROJECT / "monitoring" / Path(configuration).name).is_file()


def test_prometheus_asks_names_that_somebody_has() -> None:
    text = (PROJECT / "monitoring/prometheus-compose.yml").read_text(encoding="utf-8")
    asked = re.findall(r"names: \[([\w-]+)\], type: A, port: (\d+)", text)
    assert asked == [
        ("gateway-metrics", "9464"),
        ("triton-metrics", "8002"),
        ("site-metrics", "9465"),
        ("mt-photos-metrics", "9466"),
    ]
    for name, _ in asked:
        having = [one for one, s in SERVICES.items() if name in str(s["networks"]) and "metrics" in s["networks"]]
        assert having


def test_variables_are_filled_in_as_compose_does() -> None:
    text = "a${A:-x}b${B:+y}c$$d${A}"
    assert compose_file.interpolated(text, {}) == "axbc$d"
    assert compose_file.interpolated([{"k": text}], {"A": "1", "B": "2"}) == [{"k": "a1bycd".replace("cd", "c$d1")}]

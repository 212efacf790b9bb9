"""What the command line of ``immich-triton run`` makes of its parts; the whole: process/test_run*.py."""

from __future__ import annotations

from pathlib import Path

import argon2
import pytest

from immich_triton.cli.run_options import address, parse, read
from immich_triton.core.paths import RUN
from immich_triton.server.preflight import StartError


def test_without_the_site_there_are_two_parts(tmp_path: Path) -> None:
    parts = read(["--models", str(tmp_path), "--port", "1"])
    assert parts.site is None
    assert parts.pages == {}
    assert parts.gateway.models == parts.triton.models == tmp_path
    assert parts.gateway.triton_url == parts.triton.url
    assert parts.gateway.run_dir == RUN.resolve() / "1"


def test_the_site_has_ports_and_options_of_its_own() -> None:
    line = ["--web", "http://immich-server:2283/", "--web-options=--set web_depth=10 --set 'web_redis_url=redis://r'"]
    site = read([*line, "--web-host", "0.0.0.0", "--options=--set immich_deadline=30"]).site
    assert site is not None
    assert (site.upstream, site.host, site.port) == ("http://immich-server:2283", "0.0.0.0", 2284)
    assert site.options == ["--set", "web_depth=10", "--set", "web_redis_url=redis://r"]
    assert [port.number for port in site.ports] == [2284, 9465]
    other = read([*line, "--web-port", "5", "--web-metrics-port", ""]).site
    assert other is not None
    assert [port.number for port in other.ports] == [5]


def test_each_mitmweb_has_a_password_which_is_told_and_not_kept() -> None:
    parts = read(["--web", "http://immich:2283", "--inspect", "--web-inspect"])
    assert parts.site is not None
    for settings, product, port in ((parts.gateway, "gateway", 8081), (parts.site, "site", 8082)):
        page, _, password = parts.pages[product].partition("  password ")
        assert page == f"http://127.0.0.1:{port}/"
        assert settings.web is not None
        assert settings.web.port == port
        assert argon2.PasswordHasher().verify(settings.web.password_hash, password)


@pytest.mark.parametrize("text", ["immich:2283", "ftp://immich", "http://immich:2283/api", "http://immich:none", ""])
def test_an_address_of_immich_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="--web must look like http://immich-server:2283, not "):
        read(["--web", text])


def test_an_address_is_scheme_host_and_port() -> None:
    assert address("--web", "https://photos.example.org/", "") == "https://photos.example.org"


@pytest.mark.parametrize("option", ["--web-inspect", "--web-options=--set web_depth=1"])
def test_what_is_about_the_site_wants_the_site(option: str) -> None:
    with pytest.raises(StartError, match="about the site, which --web URL starts"):
        read([option])


@pytest.mark.parametrize("given", ["--options", "--mt-photos-options"])
@pytest.mark.parametrize("option", ["immich_triton_url=http://127.0.0.1:9", "immich_models=/tmp"])
def test_what_follows_from_other_settings_is_refused_where_it_was_given(option: str, given: str) -> None:
    with pytest.raises(StartError, match=f"{option.partition('=')[0]} cannot be set in {given}: "):
        read(["--mt-photos", f"{given}=--set {option}"])


@pytest.mark.parametrize(("given", "addon"), [("--options", "immich_ml.py"), ("--mt-photos-options", "mt_photos.py")])
def test_for_a_triton_elsewhere_the_command_of_that_gateway_is_told(given: str, addon: str) -> None:
    with pytest.raises(StartError, match=f"mitmdump -s addons/{addon} .* --set immich_triton_url="):
        read(["--mt-photos", f"{given}=--set immich_triton_url=http://127.0.0.1:9"])


@pytest.mark.parametrize(
    "option", ["--mt-photos-key=env:KEY", "--mt-photos-clip=small", "--mt-photos-options=--set mt_photos_faces=a"]
)
def test_what_is_about_mt_photos_wants_mt_photos(option: str) -> None:
    with pytest.raises(StartError, match="about the answers to MT-Photos, which --mt-photos starts"):
        read([option])


def test_web_without_an_address_is_no_mitmweb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--web"])
    assert "--web: expected one argument" in capsys.readouterr().err

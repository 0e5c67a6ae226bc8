"""The bus against a mosquitto that asks for certificates, passwords and rights."""

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.mosquitto import Mosquitto, free_port
from orion.mqtt import TlsFilesError, TlsSettings
from tests.brokers import CONTROL, RESULTS, Authority, Listener, Station, settings, tls, tls_config, wait_until
from tests.conftest import missing

Find = Callable[[str, str], str]
PASSWORD = "correct-horse"


@pytest.fixture
def authority(program: Find, tmp_path: Path) -> Authority:
    return Authority(program("openssl", "openssl"), tmp_path, "authority")


@pytest.fixture
def mosquitto_program(program: Find) -> str:
    return program("mosquitto", "mosquitto")


@pytest.fixture
def password_lines(program: Find, tmp_path: Path) -> list[str]:
    file = tmp_path / "passwords"
    tool = program("mosquitto_passwd", "mosquitto")
    for option, user in (("-c", "orion"), (None, "operator"), (None, "guest")):
        subprocess.run([tool, *([option] if option else []), "-b", file, user, PASSWORD], check=True)
    return [f"password_file {file}", "allow_anonymous false"]


def test_tls_with_the_right_authority(mosquitto_program: str, authority: Authority, tmp_path: Path) -> None:
    config = tls_config(authority, authority.issue("server"))
    with Mosquitto(mosquitto_program, tmp_path, config) as broker:
        with Station(settings(broker.port, tls=tls(authority))) as station:
            station.wait_connected()
            station.publish_results(range(100))
        assert station.bus.stats.acknowledged == 100


def test_tls_with_a_client_certificate(mosquitto_program: str, authority: Authority, tmp_path: Path) -> None:
    config = tls_config(authority, authority.issue("server"), ask_client=True)
    client = authority.issue("client")
    with Mosquitto(mosquitto_program, tmp_path, config) as broker:
        with Station(settings(broker.port, tls=tls(authority, client))) as station:
            station.wait_connected()
        with Station(settings(broker.port, tls=tls(authority))) as station:
            wait_until(lambda: station.told("unreachable") or station.told("disconnected"), "it is turned away")
            assert not station.bus.connected


def test_tls_with_the_wrong_authority(
    mosquitto_program: str, program: Find, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(program("openssl", "openssl"), tmp_path, "other")
    with Mosquitto(mosquitto_program, tmp_path, tls_config(authority, authority.issue("server"))) as broker:
        with Station(settings(broker.port, tls=tls(other))) as station:
            wait_until(lambda: station.told("unreachable"), "the certificate is refused")
        assert "certificate is not trusted" in station.told("unreachable")[0].reason
        assert station.bus.stats.reconnects == 0


def test_tls_with_an_expired_certificate(mosquitto_program: str, authority: Authority, tmp_path: Path) -> None:
    config = tls_config(authority, authority.issue("server", expired=True))
    with Mosquitto(mosquitto_program, tmp_path, config) as broker:
        with Station(settings(broker.port, tls=tls(authority))) as station:
            wait_until(lambda: station.told("unreachable"), "the certificate is refused")
        assert "certificate has expired" in station.told("unreachable")[0].reason


def test_tls_for_another_name(mosquitto_program: str, authority: Authority, tmp_path: Path) -> None:
    with Mosquitto(mosquitto_program, tmp_path, tls_config(authority, authority.issue("server"))) as broker:
        # 127.0.1 is another way to write 127.0.0.1, which the certificate does not know.
        with Station(settings(broker.port, tls=tls(authority), host="localhost")) as station:
            station.wait_connected()
        with Station(settings(broker.port, tls=tls(authority), host="127.0.1")) as station:
            wait_until(lambda: station.told("unreachable"), "the name is refused")
        assert "certificate is not trusted" in station.told("unreachable")[0].reason


def test_plain_broker_when_tls_is_asked_for(mosquitto: Mosquitto, authority: Authority) -> None:
    with Station(settings(mosquitto.port, tls=tls(authority))) as station:
        wait_until(lambda: station.told("unreachable"), "the trouble is told")
    assert not station.bus.stats.connected


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"ca": "absent.crt"}, "mqtt.tls.ca"), ({"cert": "absent.crt", "key": "absent.key"}, "mqtt.tls.cert")],
)
def test_unusable_files_are_an_error_at_the_start(changes: dict[str, str], named: str, tmp_path: Path) -> None:
    files = TlsSettings(**{name: tmp_path / file for name, file in changes.items()})
    with pytest.raises(TlsFilesError, match=f"{named}.*absent.crt"):
        Station(settings(free_port(), tls=files)).bus.start()


def test_wrong_password_is_told_and_appears_nowhere(
    mosquitto_program: str, password_lines: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wrong-battery-staple"
    with Mosquitto(mosquitto_program, tmp_path, password_lines) as broker:
        where = settings(broker.port, username="orion", password=wrong)
        with Station(where) as station:
            wait_until(lambda: station.told("refused"), "the refusal")
        with Station(settings(broker.port)) as anonymous:
            wait_until(lambda: anonymous.told("refused"), "the refusal")
        with Station(settings(broker.port, username="orion", password=PASSWORD)) as good:
            good.wait_connected()
    said = f"{where!r} {where.endpoint()!r} {station.events} {caplog.text}"
    assert wrong not in said
    assert PASSWORD not in said


def test_acl_that_lets_only_operators_command(
    mosquitto_program: str, password_lines: list[str], tmp_path: Path
) -> None:
    rights = tmp_path / "acl"
    rights.write_text(
        "user operator\ntopic readwrite care/#\n"
        "user orion\ntopic read care/control/#\ntopic readwrite care/status/#\n"
        "topic write care/inferences/#\ntopic write care/health/#\n"
        "user guest\ntopic read care/#\n"
    )
    config = [*password_lines, f"acl_file {rights}"]
    with (
        Mosquitto(mosquitto_program, tmp_path, config) as broker,
        Listener(broker.port, login=("operator", PASSWORD)) as operator,
        Listener(broker.port, login=("guest", PASSWORD)) as guest,
        Station(settings(broker.port, username="orion", password=PASSWORD)) as station,
    ):
        station.wait_connected()
        guest.publish(CONTROL, b'{"command": "shutdown"}')
        operator.publish(CONTROL, b'{"command": "get_status"}')
        station.publish_results([1])
        wait_until(lambda: guest.payloads(RESULTS), "the guest sees results")
        wait_until(lambda: station.commands, "the operator's command")
        assert [command.payload for command in station.commands] == [b'{"command": "get_status"}']


def test_acl_that_forbids_the_control_topic(mosquitto_program: str, password_lines: list[str], tmp_path: Path) -> None:
    rights = tmp_path / "acl"
    rights.write_text("user operator\ntopic readwrite care/#\nuser orion\ntopic write care/#\n")
    config = [*password_lines, f"acl_file {rights}"]
    with (
        Mosquitto(mosquitto_program, tmp_path, config) as broker,
        Listener(broker.port, login=("operator", PASSWORD)) as operator,
        Station(settings(broker.port, username="orion", password=PASSWORD)) as station,
    ):
        station.wait_connected()
        operator.publish(CONTROL, b'{"command": "shutdown"}')
        station.publish_results([1])
        wait_until(lambda: operator.payloads(RESULTS), "results go on")
    assert station.commands == []


def test_broker_that_refuses_the_subscription(mosquitto_program: str, program: Find, tmp_path: Path) -> None:
    plugins = sorted(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))
    if not plugins:
        missing("mosquitto's dynamic security plugin (Debian package mosquitto)")
    roles = tmp_path / "roles.json"
    tool = program("mosquitto_ctrl", "mosquitto")
    subprocess.run([tool, "dynsec", "init", roles, "orion", PASSWORD], check=True, capture_output=True)
    rules = json.loads(roles.read_text())
    rules["roles"][0]["acls"] = [{"acltype": "publishClientSend", "topic": "care/#", "allow": True}]
    roles.write_text(json.dumps(rules))
    config = ["allow_anonymous false", f"plugin {plugins[0]}", f"plugin_opt_config_file {roles}"]
    with (
        Mosquitto(mosquitto_program, tmp_path, config) as broker,
        Station(settings(broker.port, username="orion", password=PASSWORD)) as station,
    ):
        wait_until(lambda: station.told("control_refused"), "the refusal is told")
        assert CONTROL in station.told("control_refused")[0].reason
        station.publish_results([1])
        wait_until(lambda: station.bus.stats.acknowledged == 1, "results go on")

"""Which listener gets which of systemd's sockets."""

import socket
from pathlib import Path

import pytest

from mtactl.activation import share_out
from mtactl.errors import ConfigError
from mtactl.settings import ControlSettings, ListenerSettings, MetricsSettings, Settings


def settings(*listeners: tuple[str, int], control: Path = Path("/run/x"), metrics=None) -> Settings:
    return Settings(
        listener=tuple(ListenerSettings(listen=listen) for listen in listeners),
        control=ControlSettings(socket=control),
        metrics=MetricsSettings(listen=metrics),
    )


def bound(host: str, family=socket.AF_INET) -> socket.socket:
    each = socket.socket(family)
    if family == socket.AF_INET6:
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    each.bind((host, 0))
    return each


def test_each_listener_gets_the_socket_of_its_address():
    """If it failed, the rules of one listener would hold for the clients of another."""
    with bound("127.0.0.1") as first, bound("127.0.0.2") as second:
        ports = first.getsockname()[1], second.getsockname()[1]
        shared = share_out(
            {"smtp": [second, first]},
            settings(("127.0.0.1", ports[0]), ("127.0.0.3", 2525), ("127.0.0.2", ports[1])),
        )
        assert shared.smtp == [[first], [], [second]]


def test_all_addresses_may_be_one_socket_or_one_a_family():
    """If it failed, `listen = ":25"` could not be activated."""
    with bound("0.0.0.0") as four, socket.socket(socket.AF_INET6) as six:
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        port = four.getsockname()[1]
        six.bind(("::", port))
        assert share_out({"smtp": [four, six]}, settings(("", port))).smtp == [[four, six]]


def test_a_name_and_a_link_are_what_they_stand_for(tmp_path):
    """If it failed, "localhost:2525" or a control socket in /var/run would be called a mistake."""
    (tmp_path / "run").mkdir()
    (tmp_path / "var-run").symlink_to(tmp_path / "run")
    with bound("127.0.0.1") as smtp, bound("127.0.0.1") as metrics, socket.socket(socket.AF_UNIX) as control:
        control.bind(str(tmp_path / "run/control.sock"))
        shared = share_out(
            {"smtp": [smtp], "control": [control], "metrics": [metrics]},
            settings(
                ("localhost", smtp.getsockname()[1]),
                control=tmp_path / "var-run/control.sock",
                metrics=metrics.getsockname(),
            ),
        )
        assert (shared.smtp, shared.control, shared.metrics) == ([[smtp]], control, metrics)


def test_nothing_given():
    """If it failed, the daemon would not start without systemd."""
    shared = share_out({}, settings(("", 25), ("::1", 26)))
    assert ([*shared.smtp], shared.control, shared.metrics) == ([[], []], None, None)


def test_what_fits_nowhere_is_told_all_at_once():
    """If it failed, clients would wait for ever in a socket that nobody reads."""
    with (
        bound("127.0.0.1") as smtp,
        bound("::1", socket.AF_INET6) as other,
        bound("127.0.0.1") as metrics,
        bound("127.0.0.1") as strange,
        socket.socket(socket.AF_UNIX) as control,
        socket.socket(socket.AF_UNIX) as second,
    ):
        port = smtp.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            share_out(
                {"smtp": [smtp, other], "control": [control, second], "metrics": [metrics], "http": [strange]},
                settings(("127.0.0.2", port), ("0.0.0.0", port), ("no-such-host.invalid", port)),
            )
        told = "\n".join(caught.value.problems)
        for part in (
            f"no [[listener]] listens on 127.0.0.1:{port}, which",
            "no [[listener]] listens on [::1]:",
            "more than one socket for control",
            "control.socket is /run/x",
            "metrics.listen is not 127.0.0.1:",
            'by the name of "http"',
        ):
            assert part in told
        assert {each.fileno() for each in (smtp, other, metrics, strange, control, second)} == {-1}

"""How descriptors are shared out."""

from __future__ import annotations

import pytest

from mtactl.descriptors import LEAST, TooFewDescriptors, fit, share_out
from mtactl.settings import DeliverySettings, ListenerSettings, Settings


def test_plenty_leaves_the_configuration_as_it_is():
    """If it failed, a daemon with the limits of the unit file would take fewer connections than it was told to."""
    settings = Settings()
    fitted, shares = fit(settings, 65536)
    assert fitted is settings
    assert (shares.control, shares.monitoring, shares.backlog) == (256, 32, 128)


@pytest.mark.parametrize("limit", [LEAST, 128, 256, 1024, 4096, 8192])
def test_shares_fit_into_the_limit(limit):
    """If it failed, clients or peers could take the descriptors of the store or of the control socket."""
    shares = share_out(limit, clients=1000, peers=3000)
    taken = shares.clients + 2 * shares.peers + shares.control + shares.monitoring + 2 * shares.backlog
    assert taken <= limit - 36
    assert min(shares.clients, shares.peers, shares.control, shares.monitoring, shares.backlog) >= 1


def test_all_listeners_are_cut_alike():
    """If it failed, the first listener would leave nothing to the others."""
    settings = Settings(
        listener=(ListenerSettings(max_connections=300), ListenerSettings(max_connections=100)),
        delivery=DeliverySettings(max_connections=200),
    )
    fitted, shares = fit(settings, 256)
    first, second = (listener.max_connections for listener in fitted.listener)
    assert first == 3 * second or abs(first - 3 * second) <= 3
    assert first + second <= shares.clients
    assert fitted.delivery.max_connections == shares.peers < 200


def test_too_low_a_limit_is_said():
    """If it failed, the daemon would start and then fail at the first things that it does."""
    with pytest.raises(TooFewDescriptors, match=f"is 64, and {LEAST} are the least"):
        share_out(64, clients=1, peers=1)

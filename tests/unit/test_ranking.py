"""Which campaigns have most of something, against sorting all of them."""

from hypothesis import given
from hypothesis import strategies as st

from mtactl.campaign.ledger import Account
from mtactl.campaign.ranking import Ranking

books = st.dictionaries(st.text("abAB", max_size=4), st.integers(0, 6), max_size=40)


@given(books=books, limit=st.integers(1, 12), match=st.text("abAB", max_size=2), stride=st.integers(1, 9))
def test_the_first_are_those_that_sorting_puts_first(books, limit, match, stride):
    """Broken: the campaign with the longest queue is not on the screen, or the number of them is wrong."""
    items = [(name, Account(queued=number)) for name, number in books.items()]
    ranking = Ranking("queued", limit, match=match)
    for start in range(0, len(items), stride):
        ranking.take(items[start : start + stride])
    fitting = {name: number for name, number in books.items() if name and match.lower() in name.lower()}
    names = ranking.names()
    assert ranking.total == len(fitting)
    assert len(set(names)) == len(names) == min(limit, len(fitting))
    assert [fitting[name] for name in names] == sorted(fitting.values(), reverse=True)[:limit]
    assert names == sorted(names, key=lambda name: (-fitting[name], name))


def test_changes_on_the_way_do_no_harm():
    """Broken: a campaign that grows while others are looked at is shown twice, or breaks the walk."""
    accounts = {f"c{number}": Account(queued=number) for number in range(10)}
    ranking = Ranking("queued", 3)
    ranking.take(list(accounts.items())[:5])
    for account in accounts.values():
        account.queued += 100
    ranking.take(list(accounts.items())[5:])
    assert ranking.names() == ["c9", "c8", "c7"]

"""What is kept of conclusive answers, and for how long; which responders can be asked."""

from __future__ import annotations

import datetime

from culvert.address import HttpUrl
from culvert.responder import usable
from culvert.revocation import Answers
from culvert.tls.ocsp import URL_LIMIT, Answer

from .identities import NOW

SECOND = datetime.timedelta(seconds=1)


def test_an_answer_is_kept_as_long_as_it_holds() -> None:
    answers, answer = Answers(), Answer(False, NOW + SECOND)
    answers.put(b"a", answer)
    assert answers.get(b"a", NOW) is answer
    assert answers.get(b"b", NOW) is None
    assert answers.get(b"a", NOW + SECOND) is None
    assert len(answers) == 0


def test_the_oldest_answer_goes_where_they_are_too_many() -> None:
    answers = Answers(limit=2)
    for key in (b"a", b"b", b"a", b"c"):
        answers.put(key, Answer(False, NOW + SECOND))
    assert [answers.get(key, NOW) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


def test_responders_are_asked_once_each_and_not_too_many() -> None:
    url = HttpUrl("a", 80, "/")
    found, refusals = usable([url, "http://a/", "https://b/", *(f"http://c{n}/" for n in range(9))])
    assert found[:2] == [url, HttpUrl("c0", 80, "/")]
    assert len(found) == URL_LIMIT
    assert len(refusals) == 1
    assert refusals[0].startswith("'https://b/': ")

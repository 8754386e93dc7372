"""The arithmetic behind flow control, where a simulation would only show it roughly."""

from __future__ import annotations

import pytest

from safer_instruct.models.outage import Outage
from safer_instruct.models.pacing import LastMinute, Learned
from safer_instruct.models.window import Window


def answer(window: Window, count: int, in_flight: int, latency_s: float, now: float) -> None:
    """So many calls, one after the other, as one of so many in flight."""
    for _ in range(count):
        window.want_more()
        cohort = window.sent(in_flight)
        window.succeeded()
        window.ended(cohort, latency_s, now)


class TestWindow:
    @pytest.mark.parametrize(("more", "latency_s", "size"), [(48, 2.0, 32), (48, 1.8, 32), (48, 1.6, 64), (33, 1.9, 64)])
    def test_it_is_capped_where_twice_the_calls_take_nearly_twice_as_long(self, more: int, latency_s: float, size: int) -> None:
        window = Window(64)
        answer(window, 64, 24 if more == 48 else 31, 1.0, 10)
        answer(window, 64, more, latency_s, 20)
        assert window.size == size

    def test_and_looks_again_from_below_after_five_minutes(self) -> None:
        window = Window(64)
        answer(window, 64, 24, 1.0, 10)
        answer(window, 64, 48, 2.0, 20)
        answer(window, 200, 31, 1.0, 300)
        assert window.size == 32
        answer(window, 32, 31, 1.0, 321)
        assert 16 <= window.size < 48
        answer(window, 200, 31, 1.0, 330)
        assert window.size == 64

    def test_also_where_answers_have_become_quick(self) -> None:
        window = Window(64)
        answer(window, 64, 24, 1.0, 10)
        answer(window, 64, 48, 2.0, 20)
        answer(window, 200, 31, 0.1, 321)
        assert window.size == 64

    def test_what_was_measured_long_ago_is_not_compared(self) -> None:
        window = Window(64)
        answer(window, 64, 24, 1.0, 10)
        answer(window, 64, 48, 4.0, 1000)
        assert window.size == 64

    def test_only_whole_cohorts_count(self) -> None:
        window = Window(64)
        answer(window, 64, 24, 1.0, 10)
        cohorts = [window.sent(48) for _ in range(64)]
        for cohort in cohorts[:40]:  # the quick ones, in order of their end
            window.ended(cohort, 3.0, 20)
        answer(window, 100, 8, 1.0, 20)
        assert window.size == 64
        for cohort in cohorts[40:]:
            window.ended(cohort, None, 30)  # failed: they took no time
        assert window.size == 32


class TestLearned:
    def test_it_settles_where_one_in_twenty_is_rejected(self) -> None:
        learned, now, sent, rejected, credit = Learned(40.0, 0.0), 0.0, 0, 0, 0.0
        for _ in range(20_000):
            waited = max(0.0, learned.ready_at() - now)
            now, credit = now + waited, min(1.0, credit + 10 * waited)
            learned.take(now)
            sent, credit = sent + 1, credit - 1
            if credit < 0:
                rejected, credit = rejected + 1, credit + 1
                learned.rejected(now, now, floor=0.1)
        assert 9 < learned.per_s < 12
        assert 0.03 < rejected / sent < 0.07

    def test_rejections_of_calls_sent_together_count_as_few(self) -> None:
        learned = Learned(100.0, 0.0)
        for _ in range(500):
            learned.rejected(1.0, 2.0, floor=0.1)
        assert learned.per_s == pytest.approx(100 * 0.95**8)

    def test_one_that_is_followed_by_a_long_pause_counts_more_but_once(self) -> None:
        learned = Learned(100.0, 0.0)
        for _ in range(5):
            learned.rejected(1.0, 2.0, floor=0.1, costly=True)
        assert learned.per_s == pytest.approx(75)

    def test_it_does_not_fall_below_the_floor(self) -> None:
        learned = Learned(10.0, 0.0)
        for i in range(100):
            learned.rejected(i, i, floor=4.0)
        assert learned.per_s == 4.0

    def test_it_rises_only_where_it_held_calls_up_and_only_after_the_hold(self) -> None:
        learned = Learned(10.0, 0.0)
        for i in range(1, 100):
            learned.take(float(i))  # one a second: the rate of ten held nobody up
        assert learned.per_s == 10.0
        learned.hold(200.0)
        while learned.ready_at() < 199:
            learned.take(max(150.0, learned.ready_at()))
        assert learned.per_s == 10.0
        while learned.ready_at() < 210:
            learned.take(learned.ready_at())
        assert learned.per_s > 12


class TestLastMinute:
    def test_what_is_older_is_forgotten(self) -> None:
        minute = LastMinute()
        for second in range(100):
            minute.send(second, 3)
            minute.reject(second)
        assert minute.accepted_per_s(100) == pytest.approx(2, rel=0.05)
        assert minute.peak_per_s() == 2
        assert minute.accepted_per_s(300) == 0
        assert minute.best_per_s == pytest.approx(2, rel=0.05)

    def test_at_first_it_goes_by_the_time_there_was(self) -> None:
        minute = LastMinute()
        for second in range(10):
            minute.send(1000 + second, 6)
        assert minute.accepted_per_s(1010) == 6


class TestOutage:
    def fail(self, outage: Outage, *times: float) -> None:
        for t in times:
            outage.fail("it broke", t - 0.1, t, 1.0)

    def test_many_and_long(self) -> None:
        many, long = Outage(), Outage()
        self.fail(many, *(i / 10 for i in range(100)))
        self.fail(long, *(10.0 * i for i in range(9)))
        assert not many.broken and not long.broken
        self.fail(many, 60.0)
        self.fail(long, 90.0)
        assert many.broken and long.broken

    def test_the_waits_double_up_to_a_minute(self) -> None:
        outage = Outage()
        self.fail(outage, *range(0, 66, 5))
        waits = []
        for _ in range(6):
            at = outage.next_try
            outage.fail("it broke", at, at + 1, 1.0)
            waits.append(outage.next_try - at - 1)
        assert waits == [20, 40, 60, 60, 60, 60]

    def test_calls_sent_before_the_try_change_nothing(self) -> None:
        outage = Outage()
        self.fail(outage, *range(0, 61, 5))
        due = outage.next_try
        assert due == 65
        self.fail(outage, 61.0, 62.0, 63.0, 64.9)
        assert outage.next_try == due and outage.failures == 17

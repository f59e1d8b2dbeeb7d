"""How long a window has waited, also for what it waits for still."""

from penstock.core.meter import Meter, Wait
from penstock.core.stats import StageStats


class Watch:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def test_a_wait_counts_from_its_beginning_until_now():
    watch = Watch(1000.0)
    meter = Meter(watch, 1000.0, every_call=False)
    watch.now += 1
    meter.wait_for(Wait.UPSTREAM)
    watch.now += 2
    assert (meter.waited(Wait.UPSTREAM), meter.waited(Wait.HEAD)) == (2.0, 0.0)
    meter.wait_for(Wait.HEAD)
    watch.now += 4
    assert (meter.waited(Wait.UPSTREAM), meter.waited(Wait.HEAD)) == (2.0, 4.0)
    meter.wait_for(Wait.UPSTREAM)
    watch.now += 8
    assert (meter.waited(Wait.UPSTREAM), meter.waited(Wait.HEAD)) == (10.0, 4.0)


def test_the_first_result_is_noted_once():
    watch = Watch(5.0)
    meter = Meter(watch, 5.0, every_call=False)
    meter.note_peaks(2, 3, 0)
    assert meter.first_result is None
    watch.now = 6.0
    meter.note_peaks(1, 4, 1)
    watch.now = 7.0
    meter.note_peaks(3, 1, 2)
    assert (meter.first_result, meter.peak_running, meter.peak_in_flight, meter.peak_buffered) == (6.0, 3, 4, 2)
    books = StageStats(name="get", taken=4, delivered=1, dropped=0, failed=0, cancelled=0, discarded=0)
    assert meter.measured(books, 1).first_result_s == 1.0


def test_one_call_in_so_many_is_timed():
    meter = Meter(Watch(0.0), 0.0, every_call=False)
    assert [taken for taken in range(49) if meter.samples(taken)] == [0, 16, 32, 48]

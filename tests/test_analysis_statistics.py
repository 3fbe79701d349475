from statistics import median

from hypothesis import given
from hypothesis import strategies as st
from sagebench.analysis.statistics import bootstrap_interval, outliers, pareto_front

VALUES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=12)
POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20)


@given(VALUES)
def test_an_interval_of_the_median_lies_in_the_range_and_holds_it(values):
    interval = bootstrap_interval(values)
    assert (interval is None) == (len(values) < 5)
    if interval:
        assert min(values) <= interval[0] <= median(values) <= interval[1] <= max(values)


def test_a_bootstrap_interval_needs_five_repeats_and_is_the_same_every_time():
    assert bootstrap_interval([1.0, 2.0, 3.0, 4.0]) is None
    values = [1.0, 2.0, 3.0, 4.0, 50.0]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval([7.0] * 5) == (7.0, 7.0)


def test_outliers_are_flagged_from_three_values_on():
    assert outliers([]) == []
    assert outliers([1.0, 9.0]) == [False, False]
    assert outliers([10.0, 10.1, 15.0]) == [False, False, True]
    assert outliers([10.0, 10.0, 10.0, 20.0]) == [False, False, False, True]
    assert outliers([10.0, 12.0, 14.0]) == [False, False, False]


def test_a_difference_below_five_percent_is_no_outlier():
    assert outliers([10.0, 10.0001, 10.3]) == [False, False, False]


@given(VALUES, st.floats(0.01, 100))
def test_most_values_are_never_outliers_and_none_is_lost(values, scale):
    flags = outliers(values)
    assert len(flags) == len(values)
    assert sum(flags) <= len(values) / 2


@given(POINTS)
def test_a_point_is_on_the_pareto_front_unless_another_beats_it(points):
    def beaten(i):
        return any(p[0] <= points[i][0] and p[1] >= points[i][1] and p != points[i] for p in points)

    assert sorted(pareto_front(points)) == [i for i in range(len(points)) if not beaten(i)]

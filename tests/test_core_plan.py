"""What the plan of a window says where nobody has said anything else."""

from penstock.core.plan import Plan
from penstock.core.policy import ANY_NUMBER


async def work(item):
    return item


def test_by_default_a_window_makes_one_call_at_a_time_in_order_and_once():
    plan = Plan("work", work).replaced(name="again")
    assert (plan.name, plan.work, plan.inline, plan.gate) == ("again", work, None, None)
    assert (plan.size, plan.concurrency, plan.ordered, plan.buffer) == (1, 1, True, 0)
    assert (plan.timeout, plan.retry, plan.limits) == (None, None, None)
    assert (plan.on_error, plan.tolerance) == ("raise", ANY_NUMBER)
    assert (plan.on_failed, plan.on_passed_over, plan.on_through) == (None, None, None)

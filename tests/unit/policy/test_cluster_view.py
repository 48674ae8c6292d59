"""What is believed of the nodes: reports, and debits between them. CV-n are the invariants of policy/cluster_view.py."""

from __future__ import annotations

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.cluster_view import DEBIT_S, SETTLE_S, ClusterView
from actorflow._core.policy.label_selectors import ACCELERATOR_LABEL, NODE_ID_LABEL
from actorflow._core.policy.node_records import NodeReport

ONE = {"CPU": UNIT}


def report(version: int = 1, cpus: int = 4, free: int = 4, node_id: str = "a", **more: object) -> NodeReport:
    made = NodeReport(node_id, version, {"CPU": cpus * UNIT}, {"CPU": free * UNIT})
    for name, value in more.items():
        setattr(made, name, value)
    return made


def free(view: ClusterView, node_id: str = "a") -> float:
    view.check()
    node = view.get(node_id)
    assert node is not None
    return node.available["CPU"] / UNIT


def seen(*reports: NodeReport) -> ClusterView:
    view = ClusterView()
    for each in reports:
        assert view.update(each, 0.0)
    return view


def test_cv3_an_older_report_changes_nothing() -> None:
    view = seen(report(5, free=3))
    assert not view.update(report(4, free=1), 1.0)
    assert not view.update(report(5, free=1), 1.0)
    assert free(view) == 3
    assert view.update(report(6, free=1), 1.0)
    assert free(view) == 1


def test_a_node_that_comes_back_begins_with_any_version() -> None:
    view = seen(report(5, free=3))
    assert view.remove("a")
    assert not view.remove("a")
    assert view.get("a") is None
    assert len(view) == 0
    assert view.update(report(1, free=2), 1.0)
    assert free(view) == 2


def test_cv1_a_debt_and_a_surplus_are_cut_off() -> None:
    assert free(seen(report(free=-3))) == 0
    assert free(seen(report(free=9))) == 4
    assert free(seen(report(available={}))) == 0


def test_a_debit_counts_until_a_report_that_can_know_of_it() -> None:
    view = seen(report())
    debit = view.debit("a", ONE, 10.0)
    assert debit is not None
    assert free(view) == 3
    assert view.update(report(2, free=4), 10.0 + SETTLE_S / 2)
    assert free(view) == 3, "this report was on its way already"
    assert view.update(report(3, free=4), 10.0 + SETTLE_S)
    assert free(view) == 4
    assert not debit.open
    view.settle(debit)
    assert free(view) == 4, "CV-4: once"


def test_a_debit_ends_by_time_when_no_report_comes() -> None:
    view = seen(report())
    for at in (10.0, 10.5):
        view.debit("a", ONE, at)
    view.expire(10.0 + DEBIT_S - 0.01)
    assert free(view) == 2
    view.expire(10.0 + DEBIT_S)
    assert free(view) == 3
    view.expire(10.5 + DEBIT_S)
    assert free(view) == 4


def test_a_debit_may_be_settled_early_and_out_of_order() -> None:
    view = seen(report())
    first, second = view.debit("a", ONE, 1.0), view.debit("a", ONE, 1.0)
    assert first is not None
    assert second is not None
    view.settle(second)
    assert free(view) == 3
    assert view.update(report(2, free=4), 2.0)
    assert free(view) == 4
    view.settle(first)
    view.expire(100.0)
    assert free(view) == 4


def test_debits_beyond_what_is_free_come_back_in_full() -> None:
    view = seen(report(free=1))
    debits = [view.debit("a", ONE, 1.0) for _ in range(3)]
    assert free(view) == 0
    assert debits[0] is not None
    assert debits[1] is not None
    view.settle(debits[0])
    assert free(view) == 0
    view.settle(debits[1])
    assert free(view) == 0, "one is still on its way, and takes the one that is free"
    view.expire(100.0)
    assert free(view) == 1


def test_cv4_the_debits_of_a_node_leave_with_it() -> None:
    view = seen(report())
    debit = view.debit("a", ONE, 1.0)
    assert debit is not None
    view.remove("a")
    assert view.update(report(1), 1.0)
    view.settle(debit)
    assert free(view) == 4, "what was sent to an earlier life of the node"
    assert view.debit("b", ONE, 1.0) is None


def test_cv4_open_debits_have_a_bound() -> None:
    view = ClusterView(debits_max=2)
    view.update(report(), 0.0)
    for _ in range(3):
        view.debit("a", ONE, 1.0)
    assert free(view) == 2


def test_totals_labels_and_draining_may_change() -> None:
    view = seen(report())
    before = view.version
    view.debit("a", ONE, 1.0)
    assert view.update(report(2, free=3), 1.0)
    assert view.version == before, "who could hold what is as before"
    assert view.update(report(3, cpus=8, free=8), 1.0)
    assert free(view) == 7
    assert view.update(report(4, cpus=8, free=8, draining=True), 1.0)
    assert view.update(report(5, cpus=8, free=8, draining=True, labels={"zone": "b"}), 1.0)
    assert view.version == before + 3
    node = view.get("a")
    assert node is not None
    assert node.draining
    assert node.labels["zone"] == "b"


def test_resources_that_go_and_come_while_something_is_debited() -> None:
    view = seen(report(total={"CPU": UNIT, "disk": 2 * UNIT}, available={"CPU": UNIT, "disk": 2 * UNIT}))
    debit = view.debit("a", {"disk": UNIT}, 1.0)
    assert debit is not None
    assert view.update(report(2), 1.0)
    view.check()
    assert view.update(report(3, total={"disk": 3 * UNIT}, available={"disk": 3 * UNIT}), 1.0)
    view.check()
    node = view.get("a")
    assert node is not None
    assert node.available["disk"] == 2 * UNIT
    view.settle(debit)
    assert node.available == {"CPU": 0, "disk": 3 * UNIT}


def test_labels_that_nobody_has_to_write() -> None:
    view = seen(report(total={"GPU": UNIT, "accelerator_type:A100": UNIT}))
    node = view.get("a")
    assert node is not None
    assert node.labels == {NODE_ID_LABEL: "a", ACCELERATOR_LABEL: "A100"}

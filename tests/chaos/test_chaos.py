"""The harness itself, and one short schedule of it; `make chaos` plays a hundred."""

from __future__ import annotations

import random
import socket
import time

import torch

from chaos.attack import TRICKS, corrupted
from chaos.faults import ABSENCES, KINDS
from chaos.play import JOB, play
from chaos.report import survived
from chaos.schedule import Planned, schedule
from chaos.wires import HOST, Wire, Wires
from concord.job import parse_job
from concord.sealed import seal
from concord.site.ports import Slot
from concord.wire.messages import Stamp

SITES = ("N1", "N2", "N3", "N4")
PLAN = (
    Planned(0.2, "kill-trainer", "N1", 0.2),
    Planned(0.4, "partition", "N2", 0.5),
    Planned(0.6, "redis-emptied", "N2", 0.2),
    Planned(0.8, "disk-full", "N2", 0.8),
    Planned(1.0, "torn-checkpoint", "N1", 0.2),
    Planned(1.2, "clock-jump", "N2", 0.5),
)


def test_a_seed_says_all_of_its_schedule_and_all_kinds_come_up() -> None:
    plans = [schedule(seed, SITES) for seed in range(100)]
    assert plans == [schedule(seed, SITES) for seed in range(100)]
    assert {fault.kind for plan in plans for fault in plan} == set(KINDS)
    for plan in plans:
        assert len(plan) >= 5
        away = [fault for fault in plan if fault.kind in ABSENCES]
        assert len(away) <= 1
        assert all(fault.site != gone.site for gone in away for fault in plan if fault.at > gone.at)


def test_every_trick_of_the_attacker_changes_the_update_but_those_about_who_sends_it() -> None:
    fields = {"sequence": "3", "epoch": "1", "penalty": "0.1", "fingerprint": "f00d", "federation": "x", "sender": "N1"}
    slot = Slot(Stamp(1, 2, 3), seal({"message": torch.ones(4)}, fields))
    for trick in TRICKS:
        same = corrupted(trick, slot, random.Random(0)) == slot.blob
        assert same == (trick in ("stranger", "forged")), trick


def test_a_wire_carries_holds_back_and_breaks() -> None:
    with socket.create_server((HOST, 0)) as target, socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        wire = Wire(port, target.getsockname()[1])
        with Wires([wire]), socket.create_connection((HOST, port), timeout=10) as near:
            far, _ = target.accept()
            far.settimeout(10)
            near.sendall(b"one")
            assert far.recv(8) == b"one"
            wire.held = True
            near.sendall(b"two")
            time.sleep(0.1)
            far.setblocking(False)
            assert _nothing(far)
            far.setblocking(True)
            wire.held = False
            assert far.recv(8) == b"two"
            wire.broken = True
            near.sendall(b"three")
            assert far.recv(8) == b""
            far.close()


def _nothing(end: socket.socket) -> bool:
    try:
        end.recv(8)
    except BlockingIOError:
        return True
    return False


def test_two_sites_survive_a_short_schedule() -> None:
    job = parse_job(JOB.replace("sites: 4", "sites: 2").replace("rounds: 400", "rounds: 150"))
    outcome = play(0, PLAN, job, patience=90.0)
    record = {
        "accuracy": outcome.accuracy,
        "attacks": outcome.attacks,
        "unfinished": outcome.unfinished,
        "problems": outcome.problems,
    }
    assert survived(record, 0.95), outcome
    assert len(outcome.faults) == len(PLAN)
    assert any(name.startswith("refused") for name in outcome.attacks)

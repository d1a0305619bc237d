"""Who is a member: the document's checks, and how a running process follows it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from concord.apps.members import Members
from concord.apps.trainer import member_edges, site_edges
from concord.errors import JobError
from concord.job import Job
from concord.job.membership import Membership
from concord.settings import Settings

JOB = Job.model_validate(
    {
        "name": "trio",
        "task": "digits",
        "sites": {"N1": {"url": "http://one"}, "N2": {"learning_rate": 0.5}, "N3": {"reach": "outbound"}},
        "topology": "chain",
    }
)
PAIR = '{"version": 1, "sites": {"N1": {}, "N2": {}}, "edges": [{"sites": ["N2", "N1"]}]}'
TRIO = PAIR.replace("}}", '}, "N3": {"url": "http://three"}}').replace(
    "}]}", '}, {"sites": ["N2", "N3"], "epoch": 4}]}'
)


def test_a_job_says_who_is_a_member_as_long_as_nothing_else_does() -> None:
    members = Membership.of(JOB)
    assert members.version == 0
    assert members.sites["N1"].url == "http://one"
    assert members.sites["N3"].reach == "outbound"
    assert [edge.sites for edge in members.edges] == [("N1", "N2"), ("N2", "N3")]
    assert Membership.from_json(members.to_json()) == members


def test_both_ends_derive_the_same_terms_of_an_edge_also_for_a_site_that_the_job_does_not_know() -> None:
    text = TRIO.replace("N3", "N9").replace('"http://three"', '"http://nine", "learning_rate": 0.3, "local_steps": 5')
    members = Membership.from_json(text)
    ours, theirs = site_edges(JOB, "N2", members), site_edges(JOB, "N9", members)
    assert ours["N9"] == theirs["N2"]
    assert ours["N9"].epoch == 4
    assert ours["N9"].terms != site_edges(JOB, "N1", members)["N2"].terms
    assert member_edges(JOB, "N3", members) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        (PAIR.replace("{}}", '{"port": 1}}'), "sites.N2.port: Extra inputs are not permitted"),
        (PAIR.replace('"N2", "N1"', '"N2", "N4"'), "unknown site 'N4'"),
        (PAIR.replace('"N2", "N1"', '"N2", "N2"'), "own neighbour"),
        (PAIR.replace("]}]", ']}, {"sites": ["N1", "N2"]}]'), "listed twice"),
        (PAIR.replace('{"sites": ["N2", "N1"]}', ""), "not connected"),
        (PAIR.replace("1,", "-1,"), "version"),
        (PAIR.replace('"N1": {}', '"N_1": {}'), "letters, digits and -"),
    ],
)
def test_a_document_that_cannot_be_says_why(text: str, message: str) -> None:
    with pytest.raises(JobError, match="membership document is not right") as caught:
        Membership.from_json(text)
    assert message in str(caught.value)


def test_a_process_does_not_start_on_a_document_that_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"topology\.json cannot be read: No such file"):
        Members(JOB, Settings(topology=tmp_path / "topology.json"))


@pytest.mark.anyio
async def test_a_running_process_follows_the_document_and_survives_its_mistakes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "topology.json"
    path.write_text(PAIR)
    members = Members(JOB, Settings(topology=path), look_every=0.01)
    assert set(members.now.sites) == {"N1", "N2"}
    changes = members.changes()
    following = asyncio.ensure_future(anext(changes))
    for broken in ("{", None):
        path.unlink() if broken is None else path.write_text(broken)
        async with asyncio.timeout(10):
            while (
                f"keeps version 1 of the members: the membership document {'is' if broken else path}" not in caplog.text
            ):
                await asyncio.sleep(0.01)
    assert not following.done()
    path.write_text(TRIO)
    async with asyncio.timeout(10):
        assert set((await following).sites) == {"N1", "N2", "N3"}
    await changes.aclose()


@pytest.mark.anyio
async def test_without_a_document_nothing_ever_changes() -> None:
    members = Members(JOB, Settings())
    assert [change async for change in members.changes()] == []
    assert members.now == Membership.of(JOB)


@pytest.mark.anyio
async def test_all_who_follow_hear_of_a_change_also_of_one_before_they_began_to(tmp_path: Path) -> None:
    path = tmp_path / "topology.json"
    path.write_text(PAIR)
    members = Members(JOB, Settings(topology=path), look_every=0.01)
    path.write_text(TRIO)
    for _ in range(2):
        changes = members.changes()
        async with asyncio.timeout(10):
            assert set((await anext(changes)).sites) == {"N1", "N2", "N3"}
        await changes.aclose()

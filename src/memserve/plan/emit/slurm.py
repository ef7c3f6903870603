"""A Slurm batch script: one task on each node, in the order in which they must start."""

import re
import shlex
from collections.abc import Iterator, Sequence

from memserve.engines.install import VISIBLE
from memserve.plan.emit.server import SECRETS, Server
from memserve.plan.nodes import INTERFACE, RAY_PORT, Step, host

GIVEN = frozenset(VISIBLE.values())
"""Slurm itself says which of a shared node's cards are the job's."""
HEAD = f"""\
set -euo pipefail
set -a
# shellcheck source=/dev/null
if [ -f {SECRETS} ]; then . ./{SECRETS}; fi
set +a
"""
NODE = re.compile(r"\b(NODE_\d+)\b")
RUN = """\
# Runs a command on one node of the job.
on() {
  local node=$1
  shift
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" "$@"
}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
"""
UNTIL_HEAD = """\
# The others can join once the first node's cluster answers.
for _ in {1..120}; do
  on "${hosts[0]}" ray health-check --address %s && break
  sleep 5
done"""
WAIT = """\
# Whatever ends first ends the job.
wait -n"""


def text(server: Server, steps: Sequence[Step], bind: str, form: str) -> str:
    """The script. Submit it where the engine's environment is active: sbatch --export=ALL FILE."""
    nodes = len({step.node for step in steps})
    return "\n".join(
        (*_header(server, nodes), HEAD + RUN, *_addresses(steps), *_started(server, steps, bind), WAIT, "")
    )


def _header(server: Server, nodes: int) -> Iterator[str]:
    machine = server.plan.machine
    yield "#!/usr/bin/env bash"
    yield f"#SBATCH --job-name={server.name}"
    yield f"#SBATCH --nodes={nodes}"
    yield "#SBATCH --ntasks-per-node=1"
    if server.access.slurm:
        cards = machine.cards_per_node if nodes > 1 else server.plan.deployment.layout.cards
        yield f"#SBATCH {server.access.slurm.format(cards)}"
    yield "#SBATCH --time=24:00:00"
    yield ""
    yield f"# The engine, once, in the environment that is active at sbatch: {server.plan.install}"
    yield f"# Keys ({server.keys}, ...) belong into {SECRETS} in the folder of submission."


def _addresses(steps: Sequence[Step]) -> Iterator[str]:
    """The nodes' addresses, those that commands name."""
    if not any(step.node for step in steps):
        return
    said = {
        word for step in steps for text in (*step.command, *step.env.values()) for word in NODE.findall(text)
    }
    yield f': "${{MEMSERVE_INTERFACE:={INTERFACE}}}"'
    for node in sorted({step.node for step in steps if host(step.node) in said}):
        yield f'read -r {host(node)} _ < <(on "${{hosts[{node}]}}" hostname --ip-address)'
    yield ""


def _started(server: Server, steps: Sequence[Step], bind: str) -> Iterator[str]:
    alone = len(steps) == 1
    for step in steps:
        command = (*step.command, "--block") if step.joins else server.listening(step.command, bind)
        variables = [f"{name}={value}" for name, value in step.env.items() if not alone or name not in GIVEN]
        words = ("env", *variables, *command) if variables else command
        checkpoint = server.plan.checkpoint.id
        said = (shlex.quote(word) if word == checkpoint else _word(word) for word in words)
        yield f'on "${{hosts[{step.node}]}}" {" ".join(said)} &'
        if step.joins and step.node == 0:
            yield UNTIL_HEAD % _word(f"{host(0)}:{RAY_PORT}")


def _word(word: str) -> str:
    """A word as bash reads it back; addresses and the interface come from variables."""
    name, sign, value = word.partition("=")
    if sign and value == INTERFACE:
        return f'"{name}=$MEMSERVE_INTERFACE"'
    parts = NODE.split(word)  # what stands between the addresses, and every second time an address
    return "".join(f'"${{{part}}}"' if place % 2 else part and shlex.quote(part)
                   for place, part in enumerate(parts)) or "''"  # fmt: skip

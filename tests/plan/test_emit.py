"""Files that start a plan, read by the parsers of those who will run them; the commands for every node."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from extras import need

from memserve import missing
from memserve.errors import InvalidInput
from memserve.plan import best, emit
from memserve.plan.emit import server
from memserve.plan.nodes import steps, taken

yaml = need("yaml", "dev")
jsonschema = need("jsonschema", "dev")

DATA = Path(__file__).parents[1] / "data"
PLANS = {
    "one card": ("llama-8b", "1xL4", {}),
    "part of a node": ("llama-8b", "8xH100", {"tensor_parallel": 2, "data_parallel": 1, "backend": "vllm"}),
    "V100s": ("llama-70b", "4xV100", {}),
    "no cards": ("Qwen/Qwen2.5-0.5B-Instruct", "cpu", {}),
    "transformers": ("llama-8b", "1xT4", {"backend": "hf"}),
    "vectors": ("BAAI/bge-m3", "2xL4", {"backend": "hf"}),
    "AMD": ("llama-8b", "2xMI300X", {"backend": "vllm"}),
    "NPUs": ("Qwen/Qwen3-32B", "8x910B4", {"backend": "ascend"}),
    "two nodes": ("llama-405b", "2x8xH100", {"backend": "vllm", "quantization": "none"}),
    "two nodes, ranks": ("llama-405b", "2x8xH100", {"backend": "sglang", "quantization": "none"}),
    "four nodes of NPUs": ("Qwen/Qwen3-235B-A22B", "4x8x910B4", {"backend": "ascend"}),
    "copies on two nodes": ("llama-8b", "2x8xH100", {"backend": "vllm", "data_parallel": 16}),
    "servers on two nodes": ("llama-8b", "2x8xH100", {"backend": "sglang", "data_parallel": 16}),
}
RAY = [name for name, (_, _, wishes) in PLANS.items() if wishes.get("backend") in ("vllm", "ascend")]


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> Any:
    return named(request.param)


def named(name: str) -> Any:
    model, gpus, wishes = PLANS[name]
    return best(model, gpus, **wishes)


def words(name: str) -> list[tuple[int, str]]:
    return [(step.node, " ".join(step.command)) for step in steps(named(name))]


class TestNodes:
    def test_ray_first_everywhere_then_one_server(self) -> None:
        head, worker, server = words("two nodes")
        assert head[0] == 0 and head[1].startswith("ray start") and "--head --port=6379" in head[1]
        assert worker[0] == 1 and "--address=NODE_0:6379" in worker[1] and "NODE_1" in worker[1]
        assert server[0] == 0 and server[1].startswith("vllm serve meta-llama/Llama-3.1-405B-Instruct")
        assert "--tensor-parallel-size 8 --pipeline-parallel-size 2" in server[1]

    def test_each_rank_names_itself_and_the_same_first_node(self) -> None:
        first, second = words("two nodes, ranks")
        assert first[1].replace("--node-rank 0", "--node-rank 1") == second[1]
        assert "--nnodes 2 --node-rank 0 --dist-init-addr NODE_0:20000" in first[1]
        assert first[1].count("--nnodes") == 1

    def test_npus_get_hccl_and_each_node_its_own_address(self) -> None:
        found = steps(named("four nodes of NPUs"))
        assert [step.node for step in found] == [0, 1, 2, 3, 0]
        for step in found:
            assert step.env["HCCL_IF_IP"] == f"NODE_{step.node}" == step.env["VLLM_HOST_IP"]
            assert {"HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "HCCL_BUFFSIZE"} <= set(step.env)

    def test_gpus_get_nccl(self) -> None:
        for step in steps(named("two nodes")):
            assert {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"} <= set(step.env)

    def test_copies_start_where_the_node_before_ended(self) -> None:
        first, second = words("copies on two nodes")
        assert "--data-parallel-size-local 8" in first[1] and "--headless" not in first[1]
        assert "--data-parallel-start-rank 8 --headless" in second[1]
        assert "ray" not in first[1].split()

    def test_sglang_keeps_copies_within_a_node(self) -> None:
        for _, command in words("servers on two nodes"):
            assert "--dp-size 8" in command and "--nnodes" not in command

    def test_a_tensor_group_is_not_split(self) -> None:
        plan = best("llama-405b", "3x8xA100", backend="vllm", tensor_parallel=4, pipeline_parallel=5)
        assert taken(plan.machine, plan.deployment.layout) == 3
        plan = best("llama-405b", "4x8xH100", backend="sglang", tensor_parallel=8, pipeline_parallel=2)
        assert len(steps(plan)) == 2 and "--nnodes 2" in " ".join(steps(plan)[0].command)

    def test_json_lists_them_and_one_node_is_the_command(self, plan: Any) -> None:
        listed = plan.to_dict()["nodes"]
        assert listed and all(set(row) == {"node", "command", "env"} for row in listed)
        if plan.machine.nodes == 1:
            assert listed == [{"node": 0, "command": plan.command, "env": plan.env}]


class TestCompose:
    def test_the_specification_accepts_it(self, plan: Any) -> None:
        spec = find_spec("check_jsonschema")
        if spec is None or spec.origin is None:
            pytest.skip("check-jsonschema is not installed: it brings the Compose specification's schema")
        schema = Path(spec.origin).with_name("builtin_schemas") / "vendor" / "compose-spec.json"
        jsonschema.validate(read(plan, "compose"), json.loads(schema.read_text(encoding="utf-8")))

    def test_the_command_comes_through(self) -> None:
        plan = named("V100s")
        (service,) = read(plan, "compose")["services"].values()
        assert service["command"][: len(plan.command)] == plan.command
        assert service["image"] == "vllm/vllm-openai:v0.19.1"

    def test_loopback_unless_told_otherwise(self, plan: Any) -> None:
        for service in read(plan, "compose")["services"].values():
            if "ports" in service:
                assert all(port.startswith("127.0.0.1:") for port in service["ports"])
            else:
                assert service["network_mode"] == "host" and "0.0.0.0" not in str(service["command"])
        told = yaml.safe_load(emit.emit(plan, "compose", bind="0.0.0.0"))
        assert "0.0.0.0" in str(told)

    def test_only_the_planned_cards(self) -> None:
        (service,) = read(named("part of a node"), "compose")["services"].values()
        (devices,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert devices["device_ids"] == ["0", "1"] and not service["environment"]

    def test_npus_are_handed_in(self) -> None:
        (service,) = read(named("NPUs"), "compose")["services"].values()
        assert {"/dev/davinci0", "/dev/davinci7", "/dev/davinci_manager"} <= set(service["devices"])

    def test_an_engine_without_an_image_is_installed_first(self) -> None:
        plan = named("transformers")
        (service,) = read(plan, "compose")["services"].values()
        assert service["image"].startswith("python:") and plan.install in service["command"][2]

    def test_a_node_joins_before_it_serves(self) -> None:
        services = read(named("two nodes"), "compose")["services"]
        line = services["node-0"]["command"][2]
        assert line.index("ray start") < line.index("exec vllm serve") and "${NODE_0:?" in line
        assert services["node-1"]["command"][2].endswith("--block")
        assert services["node-1"]["profiles"] == ["node-1"]

    def test_dollars_in_words_stay_dollars(self) -> None:
        plan = best("llama-8b", "1xL4")
        odd = replace(plan, launch=replace(plan.launch, command=("vllm", "serve", "a$HOME")))
        (service,) = read(odd, "compose")["services"].values()
        assert service["command"][2] == "a$$HOME"


class TestSlurm:
    def test_bash_and_shellcheck_accept_it(self, plan: Any) -> None:
        script = emit.emit(plan, "slurm")
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
        shellcheck = shutil.which(
            "shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        if shellcheck:
            done = subprocess.run(
                [shellcheck, "-s", "bash", "-"], input=script, text=True, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stdout

    def test_it_runs_each_nodes_words_on_that_node(self, tmp_path: Path) -> None:
        """With Slurm's and Ray's commands replaced by ones that write down what they were asked."""
        for name, body in STAND_INS.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
            (tmp_path / name).chmod(0o755)
        (tmp_path / "memserve.env").write_text("HF_TOKEN=secret\n", encoding="utf-8")
        plan = named("two nodes")
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        log = tmp_path / "log"
        subprocess.run(
            ["bash", "-c", emit.emit(plan, "slurm")], cwd=tmp_path, timeout=120, check=True,
            env={"PATH": path, "LOG": str(log), "SLURM_JOB_NODELIST": "n[0-1]"},
        )  # fmt: skip
        lines = log.read_text(encoding="utf-8").splitlines()
        assert any(
            line.startswith("n0 10.0.0.0 ray start") and "--node-ip-address=10.0.0.0" in line
            for line in lines
        )
        assert any(
            line.startswith("n1 10.0.0.1 ray start --disable") and "--address=10.0.0.0:6379" in line
            for line in lines
        )
        served = next(line for line in lines if " vllm serve " in line)
        assert served == "n0 10.0.0.0 " + " ".join((*plan.command, "--host", "127.0.0.1", "--port", "8000"))


STAND_INS = {
    "scontrol": "printf 'n0\\nn1\\n'",
    "srun": 'for word; do case $word in --nodelist=*) export NODE=${word#*=};; esac; done\n'
    'while [[ $1 == --* ]]; do shift; done\n"$@"',
    "hostname": "echo 10.0.0.${NODE#n}",
    "ray": 'echo "$NODE $VLLM_HOST_IP ray $*" >> "$LOG"\n[[ $1 == health-check ]] || sleep 5',
    "vllm": 'sleep 1; echo "$NODE $VLLM_HOST_IP vllm $*" >> "$LOG"',
}  # fmt: skip


class TestKubeRay:
    @pytest.mark.parametrize("name", RAY)
    def test_its_fields_are_the_resource_definitions(self, name: str) -> None:
        spec = read(named(name), "kuberay")["spec"]
        cluster = spec["rayClusterSpec"]
        check_fields("RayJob", spec)
        check_fields("RayCluster", cluster)
        check_fields("HeadGroup", cluster["headGroupSpec"])
        for group in cluster.get("workerGroupSpecs", ()):
            check_fields("WorkerGroup", group)

    @pytest.mark.parametrize("name", RAY)
    def test_kubernetes_accepts_its_pods(self, name: str) -> None:
        validate = need("kubernetes_validate", "dev")
        cluster = read(named(name), "kuberay")["spec"]["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ())):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
            validate.validate(pod, validate.latest_version(), strict=True)

    @pytest.mark.parametrize("name", RAY)
    def test_the_whole_definition_accepts_it(self, name: str) -> None:
        definition().validate(read(named(name), "kuberay"))

    def test_pods_hold_all_nodes_and_cards(self) -> None:
        cluster = read(named("four nodes of NPUs"), "kuberay")["spec"]["rayClusterSpec"]
        (workers,) = cluster["workerGroupSpecs"]
        assert workers["replicas"] == workers["minReplicas"] == 3
        (container,) = workers["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == {"huawei.com/Ascend910": 8}
        assert {"name": "HCCL_IF_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}} in container[
            "env"
        ]

    def test_an_engine_that_does_not_run_on_ray_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="does not run on Ray"):
            emit.emit(named("two nodes, ranks"), "kuberay")


ALONE = [name for name, (_, gpus, _) in PLANS.items() if gpus.count("x") < 2]


def documents(name: str, form: str = "kubernetes") -> dict[str, Any]:
    text = emit.emit(named(name), form)
    return {one["kind"]: one for one in yaml.load_all(text, Loader=yaml.CSafeLoader)}


class TestKubernetes:
    @pytest.mark.parametrize("name", ALONE)
    def test_kubernetes_accepts_its_documents(self, name: str) -> None:
        validate = need("kubernetes_validate", "dev")
        found = documents(name)
        assert set(found) == {"PersistentVolumeClaim", "Deployment", "Service", "HorizontalPodAutoscaler"}
        for one in found.values():
            validate.validate(one, validate.latest_version(), strict=True)

    @pytest.mark.parametrize("name", ALONE)
    def test_its_parts_belong_together(self, name: str) -> None:
        found, plan = documents(name), named(name)
        spec = found["Deployment"]["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        (port,) = container["ports"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == found["Service"]["spec"]["selector"] == labels
        assert found["Service"]["spec"]["ports"][0]["port"] == port["containerPort"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] == port["containerPort"]
        target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        assert target["name"] == found["Deployment"]["metadata"]["name"]
        cards = list(container["resources"].get("limits", {}).values())
        vendor = plan.machine.card.vendor
        assert cards == ([] if vendor == "cpu" else [plan.deployment.layout.cards])
        assert "0.0.0.0" in " ".join(container["command"])
        assert not any("VISIBLE" in one["name"] for one in container["env"])
        claim = found["PersistentVolumeClaim"]
        assert spec["template"]["spec"]["volumes"][1]["persistentVolumeClaim"] == {
            "claimName": claim["metadata"]["name"]
        }
        size = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
        assert size >= plan.to_dict()["storage"]["download_gib"]

    def test_keda_asks_prometheus_what_the_engine_counts(self) -> None:
        found = documents("one card", "kubernetes-keda")["ScaledObject"]["spec"]
        assert found["scaleTargetRef"] == {"name": documents("one card")["Deployment"]["metadata"]["name"]}
        assert "vllm:num_requests_waiting" in found["triggers"][0]["metadata"]["query"]
        with pytest.raises(InvalidInput, match="metric"):
            emit.emit(named("transformers"), "kubernetes-keda")

    def test_npus_come_with_their_driver(self) -> None:
        spec = documents("NPUs")["Deployment"]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["resources"]["limits"] == {"huawei.com/Ascend910": 8}
        mounted = {one["mountPath"] for one in container["volumeMounts"] if one.get("readOnly")}
        assert "/usr/local/Ascend/driver/lib64" in mounted
        assert spec["tolerations"] == [{"key": "huawei.com/Ascend910", "operator": "Exists"}]

    def test_a_plan_of_several_nodes_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="kuberay"):
            emit.emit(named("two nodes"), "kubernetes")


@cache
def definition() -> Any:
    path = os.environ.get("MEMSERVE_KUBERAY_CRD")
    if not path:
        pytest.skip("MEMSERVE_KUBERAY_CRD does not name KubeRay's ray.io_rayjobs.yaml")
    whole = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    (version,) = (row for row in whole["spec"]["versions"] if row["name"] == "v1")
    return jsonschema.Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))


def check_fields(kind: str, value: dict[str, Any]) -> None:
    row = json.loads((DATA / "kuberay_fields.json").read_text(encoding="utf-8"))[kind]
    properties = {name: {"type": kind} for name, kind in row["fields"].items()}
    schema = {"properties": properties, "required": row["required"], "additionalProperties": False}
    jsonschema.validate(value, schema)


def closed(schema: Any) -> Any:
    """The schema as the server reads it: a field that it does not name is an error, not a remark."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(part) for name, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        inner.pop("format", None)
    if (
        isinstance(schema.get("properties"), dict)
        and "additionalProperties" not in schema
        and schema["properties"]
    ):
        inner["additionalProperties"] = False
    return inner


class TestSecrets:
    @pytest.mark.parametrize("form", emit.FORMATS)
    def test_no_key_of_the_environment_is_written(self, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HF_TOKEN", "VLLM_API_KEY", "OPENAI_API_KEY"):
            monkeypatch.setenv(name, "hf_secret123")
        nodes = "one card" if form.startswith("kubernetes") else "two nodes"
        assert "hf_secret123" not in emit.emit(named(nodes), form)


class TestBlock:
    @pytest.mark.parametrize(
        "value",
        [
            {"a": [], "b": {}, "c": None, "d": [1, [2, {"e": "x: y #z\n'\"\\ \t"}]], "yes": "no"},
            {"a": [{"b": [{}]}]},
            {"ü": "日本 \x85 \u2028 😀", "n": -1.5, "t": True, "1": "1", "a b": "- c"},
        ],
    )
    def test_yaml_reads_back_what_went_in(self, value: Any) -> None:
        assert yaml.safe_load(server.dump(value)) == value


class TestCommandLine:
    def test_stdout_is_the_file(self) -> None:
        done = planned("llama-8b", "--gpus", "1xL4", "--emit", "compose")
        assert done.returncode == 0 and yaml.safe_load(done.stdout)["services"]

    def test_nothing_on_stdout_where_nothing_fits(self) -> None:
        done = planned("llama-405b", "--gpus", "1xT4", "--emit", "slurm")
        assert (done.returncode, done.stdout) == (1, "") and len(done.stderr.splitlines()) == 1

    def test_json_carries_the_file(self) -> None:
        done = planned("llama-8b", "--gpus", "1xL4", "--emit", "slurm", "--json")
        answer = json.loads(done.stdout)
        assert answer["emitted"].startswith("#!") and answer["plan"]["nodes"]

    @pytest.mark.parametrize(
        "words",
        [
            ("--emit", "helm"),
            ("--emit", "compose", "--bind", "here"),
            ("--emit", "slurm", "--embedder", "bge-m3"),
        ],
    )
    def test_malformed(self, words: tuple[str, ...]) -> None:
        done = planned("llama-8b", "--gpus", "1xL4", *words)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and len(done.stderr) <= 301


def planned(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "memserve.plan", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def read(plan: Any, form: str) -> Any:
    return yaml.safe_load(emit.emit(plan, form))


@pytest.mark.parametrize(
    "gpus", ["M3-Max", "Arc-B580", "P40", "1xMI50", "cpu", "1xL4", "1x910B4", "1xMI300X", "GTX1080Ti"]
)
@pytest.mark.parametrize("model", ["qwen3-8b", "bge-m3", "unsloth/Qwen3-8B-GGUF"])
def test_no_container_is_asked_to_compile_or_for_cards_that_it_is_not_handed(gpus: str, model: str) -> None:
    plan = best(model, gpus)
    for form in emit.FORMATS:
        try:
            text = emit.emit(plan, form)
        except InvalidInput as refused:
            assert re.search("compiled|not handed|Ray|no metric", str(refused)), refused
            continue
        assert plan.machine.card.vendor not in ("apple", "intel")
        assert form == "slurm" or not re.search("CMAKE_ARGS|git clone", text), (form, text)
    if plan.machine.card.vendor in ("apple", "intel"):
        with pytest.raises(InvalidInput, match="not handed to containers and jobs"):
            emit.emit(plan, "slurm")


@pytest.mark.parametrize("form", ["compose", "kubernetes"])
@pytest.mark.parametrize("edits", ["-e ", ""])
def test_a_checkout_is_no_address_on_another_machine(form: str, edits: str, monkeypatch: Any) -> None:
    for module in (server, missing):
        monkeypatch.setattr(module, "origin", lambda: (edits, "/home/me/memserve", ""))
    text = emit.emit(best("bge-m3", "1xL4", backend="hf"), form)
    assert "/home/me" not in text
    assert "memserve[hf]" in text


@pytest.mark.parametrize("form", emit.FORMATS)
def test_what_must_be_made_first_is_told_in_the_file(form: str) -> None:
    plan = best("smollm2-1.7b", "1xL4", backend="vllm", quantization="awq")
    assert plan.checkpoint.make
    odd = replace(plan, checkpoint=replace(plan.checkpoint, make=plan.checkpoint.make + "\ntouch /tmp/x"))
    told = [
        line for line in emit.emit(odd, form).splitlines() if "memserve compress" in line or "touch" in line
    ]
    assert len(told) == 1 and told[0].startswith(f"# Before the first start: {plan.checkpoint.make} touch")
    assert "Before the first start" not in emit.emit(best("smollm2-1.7b", "1xL4", backend="vllm"), form)

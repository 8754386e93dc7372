"""The files for clusters: their own linters, Kubernetes' schemas, KubeRay's fields, and what the batch scripts would have run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted((DEPLOY / "slurm").glob("*.sbatch"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
BIN = Path(sys.executable).parent

# Fields and types of KubeRay's v1 API that these files use, and which of them must be there; read from ray-operator/apis/ray/v1/rayjob_types.go and
# raycluster_types.go of ray-project/kuberay, where a pod template is Kubernetes' own. A field of another name is refused by the API server.
RAY_JOB: dict[str, type] = {
    "entrypoint": str,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "submissionMode": str,
    "runtimeEnvYAML": str,
    "rayClusterSpec": dict,
}
RAY_CLUSTER: dict[str, type] = {"rayVersion": str, "enableInTreeAutoscaling": bool, "autoscalerOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list}
AUTOSCALER: dict[str, type] = {"idleTimeoutSeconds": int, "upscalingMode": str, "resources": dict}
HEAD: dict[str, type] = {"rayStartParams": dict, "template": dict, "serviceType": str}
WORKERS: dict[str, type] = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "numOfHosts": int,
    "rayStartParams": dict,
    "template": dict,
}


def objects(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text("utf-8")) if found]


ALL = [(f"{path.name}-{found['kind']}", found) for path in MANIFESTS for found in objects(path)]
(RAY,) = (found for _, found in ALL if found["apiVersion"] == "ray.io/v1")


def pod_templates(found: Any) -> Iterator[dict[str, Any]]:
    """Every pod template within an object."""
    for key, value in found.items():
        if key == "template":
            yield value
        elif isinstance(value, dict):
            yield from pod_templates(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    yield from pod_templates(item)


def commands() -> list[tuple[str, list[str]]]:
    """Every `safer-instruct` command in these files."""
    found = []
    for path in (*SCRIPTS, *MANIFESTS, DEPLOY / "Dockerfile", ROOT / "docs" / "cluster.md"):
        text = path.read_text("utf-8").replace("\\\n", " ")
        found += [(path.name, shlex.split(said)) for said in re.findall(r"(?m)(?:^|[-:\s`])(safer-instruct (?:run|models|status)[^\n&|`#]*)", text)]
    return found


def run_program(*command: str, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- linters


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_batch_scripts_pass_bash_and_shellcheck(script: Path) -> None:
    run_program("bash", "-n", str(script))
    run_program(str(BIN / "shellcheck"), "--severity=style", str(script))


def test_yaml_files_pass_yamllint() -> None:
    run_program(str(BIN / "yamllint"), "--strict", "-c", str(DEPLOY / ".yamllint.yaml"), str(DEPLOY))


@pytest.mark.parametrize(("name", "found"), ALL, ids=[name for name, _ in ALL])
def test_objects_and_every_pod_in_them_fit_the_schemas_of_kubernetes(name: str, found: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    if found["apiVersion"] != "ray.io/v1":
        validate.validate(found, "1.31", strict=True)
    templates = list(pod_templates(found))
    assert templates or found["kind"] not in ("RayJob", "Deployment")
    for template in templates:
        validate.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}, "1.31", strict=True)


def test_a_wrong_field_of_a_pod_would_be_found() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    spec = {"containers": [{"name": "a", "image": "b", "volumeMount": []}]}
    with pytest.raises(validate.ValidationError):
        validate.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}, "1.31", strict=True)


# --- KubeRay


def test_the_ray_job_has_kuberays_fields_and_types_and_those_that_must_be_there() -> None:
    spec = RAY["spec"]
    cluster = spec["rayClusterSpec"]
    for where, known, needed in (
        (spec, RAY_JOB, {"entrypoint", "rayClusterSpec"}),
        (cluster, RAY_CLUSTER, {"headGroupSpec"}),
        (cluster["autoscalerOptions"], AUTOSCALER, set()),
        (cluster["headGroupSpec"], HEAD, {"rayStartParams", "template"}),
        *((group, WORKERS, {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"}) for group in cluster["workerGroupSpecs"]),
    ):
        assert needed <= where.keys() <= known.keys()
        assert [key for key, value in where.items() if type(value) is not known[key]] == []
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "ray start takes strings"
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in cluster["workerGroupSpecs"])


def test_all_pods_of_a_run_see_config_keys_and_run_directory_and_no_key_stands_in_a_file() -> None:
    claims = {found["metadata"]["name"] for _, found in ALL if found["kind"] == "PersistentVolumeClaim"}
    for template in pod_templates(RAY):
        (container,) = template["spec"]["containers"]
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {"config": "/config", "runs": "/runs"}
        assert volumes["runs"]["persistentVolumeClaim"]["claimName"] in claims
        assert container["envFrom"] == [{"secretRef": {"name": "safer-instruct-keys"}}]
    assert not any(found["kind"] == "Secret" for _, found in ALL)
    assert all(found["spec"]["accessModes"] == ["ReadWriteMany"] for _, found in ALL if found["kind"] == "PersistentVolumeClaim")


def test_image_ray_and_dockerfile_speak_of_the_same_versions_and_of_extras_that_there_are() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"ARG RAY={RAY['spec']['rayClusterSpec']['rayVersion']}" in dockerfile
    images = {container["image"] for template in pod_templates(RAY) for container in template["spec"]["containers"]}
    assert len(images) == 1 and images.pop().endswith(f"/safer-instruct:{version}") and f"safer-instruct:{version}" in dockerfile
    extras = re.search(r"safer-instruct\[([a-z,-]+)\]", dockerfile)
    assert extras
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= known.keys()
    assert all((ROOT / source).exists() for line in dockerfile.splitlines() if line.startswith("COPY") for source in line.split()[2:-1])


# --- what would be run


def test_every_command_has_options_that_the_command_line_has() -> None:
    found = commands()
    assert len(found) >= 5
    for where, (_, command, *rest) in found:
        options = {part.partition("=")[0] for part in rest if part.startswith("--")}
        said = run_program(
            sys.executable,
            "-m",
            "safer_instruct.cli",
            *([command, rest[0]] if command == "models" else [command]),
            "--help",
            env={**os.environ, "COLUMNS": "300"},
        )
        known = set(re.findall(r"--[a-z][a-z-]*", said))
        assert options <= known, where


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """A job's environment, and programs of a cluster that write down what they are asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("srun", "ray", "vllm", "safer-instruct"):
        (programs / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >>"$SAID"\n')
    (programs / "scontrol").write_text("#!/bin/bash\nprintf 'node-a\\nnode-b\\nnode-c\\n'\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node-[a-c]", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "16"}
    said = {"SAID": str(tmp_path / "said"), "RAY_HEAD_WAIT_S": "1", "SLURM_SUBMIT_DIR": str(tmp_path)}
    return {"PATH": f"{programs}:/usr/bin:/bin", "CONFIG": "/shared/my config.yaml", "OUT": "s3://bucket/run", **job, **said}


def asked(script: str, environment: dict[str, str]) -> list[str]:
    run_program("bash", str(DEPLOY / "slurm" / script), env=environment)
    return Path(environment["SAID"]).read_text("utf-8").splitlines()


def test_a_job_starts_ray_on_all_its_nodes_and_the_run_on_the_first(slurm: dict[str, str]) -> None:
    assert asked("run.sbatch", slurm) == [
        "srun --nodes=3 --ntasks=3 --kill-on-bad-exit=1 ray symmetric-run --address node-a:24711 --min-nodes 3 --num-cpus=16 -- "
        "safer-instruct run /shared/my config.yaml --runner ray --address auto --out s3://bucket/run"
    ]


def test_with_an_older_ray_head_workers_and_run_are_started_one_by_one(slurm: dict[str, str]) -> None:
    head, workers, run = sorted(
        asked("run-older-ray.sbatch", slurm), key=lambda said: ("--head" not in said, "ray start" not in said)
    )  # two run beside the script
    assert "--nodelist=node-a" in head and "ray start --head --node-ip-address=node-a --port=24711" in head
    assert "--nodes=2 --ntasks=2" in workers and "--exclude=node-a" in workers and "ray start --address=node-a:24711" in workers
    assert run.endswith("safer-instruct run /shared/my config.yaml --runner ray --address node-a:24711 --out s3://bucket/run")


def test_a_server_writes_its_address_and_takes_it_back_when_it_ends(slurm: dict[str, str]) -> None:
    (said,) = asked("vllm.sbatch", {**slurm, "MODEL": "/m", "VLLM_API_KEY": "k"})
    assert said.startswith("srun vllm serve /m --host 0.0.0.0 --port 24711") and "k" not in said.split()
    assert list((Path(slurm["SLURM_SUBMIT_DIR"]) / "endpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "variable"), [("run.sbatch", "CONFIG"), ("run.sbatch", "OUT"), ("run-older-ray.sbatch", "CONFIG"), ("vllm.sbatch", "VLLM_API_KEY")]
)
def test_a_job_without_what_it_needs_says_so_and_starts_nothing(slurm: dict[str, str], script: str, variable: str) -> None:
    environment = {name: value for name, value in {**slurm, "MODEL": "/m"}.items() if name != variable}
    done = subprocess.run(["bash", str(DEPLOY / "slurm" / script)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0 and f"{variable}: " in done.stderr and not Path(slurm["SAID"]).exists()

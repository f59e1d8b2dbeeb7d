"""The manifest in docs/cluster.md, as far as it can be looked at without Kubernetes."""

import ast
import re
from pathlib import Path

import yaml

FIELDS = {
    "job": ({"entrypoint", "shutdownAfterJobFinishes", "rayClusterSpec"}, set()),
    "cluster": ({"rayVersion", "headGroupSpec", "workerGroupSpecs"}, {"headGroupSpec"}),
    "head": ({"rayStartParams", "template"}, {"rayStartParams", "template"}),
    "workers": (
        {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
        {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    ),
}
"""Of the specifications of KubeRay (`ray-operator/apis/ray/v1`): fields that it has, as far as used, and must have."""

PAGE = (Path(__file__).parent.parent.parent / "docs" / "cluster.md").read_text()


def test_the_database_of_the_program_is_on_the_volume_of_the_head():
    """Else a job that is applied again would begin anew."""
    (manifest,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    claim, job = yaml.safe_load_all(manifest)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    (container,), (volume,) = head["containers"], head["volumes"]
    (mount,) = container["volumeMounts"]
    assert mount["name"] == volume["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (workers,) = cluster["workerGroupSpecs"]
    assert {each["image"] for each in workers["template"]["spec"]["containers"]} == {container["image"]}
    program = re.search(r"```text\n(import asyncio.*?)```", PAGE, re.DOTALL)[1]
    ast.parse(program)
    database = re.search(r'SqliteTable\("(.*?)"', program)[1]
    assert database.startswith(f"{mount['mountPath']}/")


def test_the_fields_of_the_job_are_those_of_kuberay():
    """A field that KubeRay does not know is dropped in silence, one that it lacks is refused."""
    (manifest,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    _, job = yaml.safe_load_all(manifest)
    cluster = job["spec"]["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    parts = [("job", job["spec"]), ("cluster", cluster), ("head", head), *(("workers", each) for each in workers)]
    for part, fields in parts:
        known, needed = FIELDS[part]
        assert needed <= set(fields) <= known, part
    params = [value for group in (head, *workers) for value in group["rayStartParams"].values()]
    assert all(isinstance(value, str) for value in params)
    assert all(each["minReplicas"] <= each["replicas"] <= each["maxReplicas"] for each in workers)

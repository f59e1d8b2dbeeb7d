"""The manifest in docs/cluster.md, as far as it can be looked at without Kubernetes."""

import ast
import re
from pathlib import Path

import yaml

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

"""The manifests of docs/kubernetes.md fit together; no cluster has run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.paths import REPOSITORY
from tianji_cli.config.inventory import DEFAULT_PORTS, load_inventory

PAGE = REPOSITORY / "docs" / "kubernetes.md"
MANIFESTS = REPOSITORY / "docs" / "kubernetes" / "tianji.yaml"


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    """By kind and name."""
    found = yaml.safe_load_all(MANIFESTS.read_text(encoding="utf-8"))
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in found}


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    return dict(job["spec"]["template"]["spec"])


def test_every_pod_of_the_hosts_is_in_the_inventory(objects: dict[str, Any], tmp_path: Path):
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text(objects["ConfigMap/tianji-inventory"]["data"]["hosts.yaml"])
    hosts = load_inventory(inventory).hosts
    job = objects["Job/tianji-hosts"]["spec"]
    name = f"tianji-hosts-{{}}.{pod_of(objects['Job/tianji-hosts'])['subdomain']}"
    assert [host.name for host in hosts] == [name.format(i) for i in range(job["completions"])]
    assert job["parallelism"] == job["completions"]
    cpu = pod_of(objects["Job/tianji-hosts"])["containers"][0]["resources"]["requests"]["cpu"]
    assert {host.cores for host in hosts} == {int(cpu)}
    assert all(host.key and host.known_hosts for host in hosts)


def test_ports_names_and_labels_agree(objects: dict[str, Any]):
    service = objects["Service/tianji"]["spec"]
    assert service["clusterIP"] == "None"
    (port,) = service["ports"]
    (rule,) = objects["NetworkPolicy/tianji"]["spec"]["ingress"]
    ssh, run = rule["ports"]
    assert ssh["port"] == port["port"] == 2222
    assert f"{run['port']}-{run['endPort']}" == DEFAULT_PORTS
    for job in ("Job/tianji-hosts", "Job/tianji-run"):
        labels = objects[job]["spec"]["template"]["metadata"]["labels"]
        assert service["selector"].items() <= labels.items()
        assert objects[job]["spec"]["backoffLimit"] == 0
        assert pod_of(objects[job])["restartPolicy"] == "Never"


def test_what_pods_mount_is_made_by_the_manifests_or_the_page(objects: dict[str, Any]):
    page = PAGE.read_text(encoding="utf-8")
    assert "**Not tested.**" in page
    for job in ("Job/tianji-hosts", "Job/tianji-run"):
        pod = pod_of(objects[job])
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounted = {mount["name"] for item in pod["containers"] for mount in item["volumeMounts"]}
        assert mounted == set(volumes)
        for volume in volumes.values():
            if "secret" in volume:
                assert f"secret generic {volume['secret']['secretName']}" in page
                keys = {item["key"] for item in volume["secret"]["items"]}
                assert all(f"--from-file={key}" in page for key in keys)
            elif "configMap" in volume:
                name = volume["configMap"]["name"]
                assert f"ConfigMap/{name}" in objects or f"create configmap {name}" in page
            else:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert f"PersistentVolumeClaim/{claim}" in objects

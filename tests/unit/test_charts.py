"""The charts' documentation is that of their values, and a value without one is found."""

from __future__ import annotations

import subprocess
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from diffusion_operator.errors import BadInputError
from diffusion_operator.leader_election import lease_reference
from diffusion_operator.settings import FetchNetwork, PodUser, Settings, from_environment
from tests.support.paths import ROOT
from tools.charttools import manifests, values
from tools.charttools.schemas import write
from tools.common.errors import ToolError

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = {"DIFFUSION_OPERATOR_BUILDER_IMAGE": "b:1", "DIFFUSION_OPERATOR_SERVING_IMAGE": "s:1"}


def test_a_value_without_a_comment_is_found() -> None:
    with pytest.raises(ToolError, match=r"metrics\.service"):
        values.read("# The port.\nport: 1\nmetrics:\n  service: false\n")


def test_the_table_has_the_path_the_default_and_the_comment_of_each_value() -> None:
    rows = values.read('proxy:\n  # NO_PROXY: a|b.\n  "no": ""\n# All of them.\nlabels: {}\n')
    assert [(value.path, value.default) for value in rows] == [("proxy.no", '""'), ("labels", "{}")]
    assert '| `proxy.no` | `""` | NO_PROXY: a\\|b. |' in values.table(rows)


def test_the_page_of_the_chart_is_up_to_date() -> None:
    page = (ROOT / "docs" / "chart.md").read_text()
    text = (ROOT / "charts" / "diffusion-operator" / "values.yaml").read_text()
    assert values.inserted(page, values.read(text)) == page


def test_the_plain_manifest_holds_the_present_definition() -> None:
    assert manifests.INSTALL.read_text() == manifests.installation(manifests.OPERATOR.read_text())


def test_the_deployment_sets_only_variables_that_the_operator_reads() -> None:
    template = (ROOT / "charts" / "diffusion-operator" / "templates" / "deployment.yaml").read_text()
    source = (ROOT / "operator" / "diffusion_operator" / "settings.py").read_text()
    settings = {field.name.upper() for field in fields(Settings)}
    variables = {
        line.split("DIFFUSION_OPERATOR_")[1].strip() for line in template.splitlines() if "- name: DIFF" in line
    }
    plain = {name for name in variables if not name.startswith(("FETCH_HTTP", "FETCH_NO_PROXY", "TENSORRT_"))}
    assert len(plain) > 10
    assert sorted(name for name in plain - settings if f'"{name}"' not in source) == []


def test_proxies_are_given_in_both_spellings() -> None:
    proxy = {"DIFFUSION_OPERATOR_FETCH_NO_PROXY": ".svc", "DIFFUSION_OPERATOR_FETCH_CA_CONFIG_MAP": "ca"}
    assert from_environment(IMAGES | proxy).fetch == FetchNetwork((("NO_PROXY", ".svc"), ("no_proxy", ".svc")), "ca")
    assert from_environment(IMAGES).fetch == FetchNetwork()


def test_no_file_of_the_repository_is_a_link() -> None:
    """A link is a text file in a zip download and in a checkout on Windows."""
    stages = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(stages.splitlines()) > 100
    assert [line for line in stages.splitlines() if line.startswith("120000")] == []


def test_the_name_of_the_lease_is_that_of_the_installation() -> None:
    assert from_environment(IMAGES).lease_name == lease_reference("any").name
    assert from_environment(IMAGES | {"DIFFUSION_OPERATOR_LEASE_NAME": "acme"}).lease_name == "acme"


def test_users_and_groups_are_numbers_or_left_out() -> None:
    assert from_environment(IMAGES).pod_user == PodUser(65532, 65532, 65532)
    user = {"DIFFUSION_OPERATOR_RUN_AS_USER": "1000", "DIFFUSION_OPERATOR_RUN_AS_GROUP": "0"}
    assert from_environment(IMAGES | user).pod_user == PodUser(1000, 0, 65532)
    assert from_environment(IMAGES | {"DIFFUSION_OPERATOR_FS_GROUP": "none"}).pod_user == PodUser(fs_group=None)
    with pytest.raises(BadInputError, match="DIFFUSION_OPERATOR_RUN_AS_USER is 'nobody'"):
        from_environment(IMAGES | {"DIFFUSION_OPERATOR_RUN_AS_USER": "nobody"})


def test_the_schemas_made_for_kubeconform_know_no_other_fields(tmp_path: Path) -> None:
    kind = {"group": "apps", "version": "v1", "kind": "Deployment"}
    one = {"type": "object", "properties": {"spec": {"$ref": "#/definitions/Spec"}}}
    spec = {"type": "object", "properties": {"paused": {"type": "boolean"}}}
    write({"definitions": {"One": one | {"x-kubernetes-group-version-kind": [kind]}, "Spec": spec}}, tmp_path)
    text = (tmp_path / "apps_v1_deployment.json").read_text()
    assert text.count('"additionalProperties": false') == 2

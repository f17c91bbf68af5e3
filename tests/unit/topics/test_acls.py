"""The rights as ``topics acls`` prints them: for whom, and of which kind."""

import json

import pytest

from bridge.cli import main


@pytest.mark.parametrize(
    ("given", "principal"),
    [
        ("billing", "User:billing"),
        ("User:billing", "User:billing"),
        ("Group:billing", "Group:billing"),
        ("RoleOfOurs:billing", "RoleOfOurs:billing"),
        ("CN=bridge,OU=crm,O=Example", "User:CN=bridge,OU=crm,O=Example"),
        ("User:CN=bridge,O=Example", "User:CN=bridge,O=Example"),
        ("spiffe://example.org/bridge", "User:spiffe://example.org/bridge"),
        ("User:spiffe://example.org/bridge", "User:spiffe://example.org/bridge"),
        ("a name", "User:a name"),
        ("User:*", "User:*"),
    ],
)
def test_a_principal_is_printed_as_kafka_s_tools_take_it(
    given: str, principal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mere name is a user's, as is a certificate's."""
    assert main(["topics", "acls", "--bridge", given, "--format", "json"]) == 0
    assert {acl["principal"] for acl in json.loads(capsys.readouterr().out)} == {principal}


def test_a_principal_is_not_empty(capsys: pytest.CaptureFixture[str]) -> None:
    """As where a variable of a script is not set."""
    with pytest.raises(SystemExit, match="2"):
        main(["topics", "acls", "--bridge", " "])
    assert "--bridge: it is empty; write the user's name" in capsys.readouterr().err


def test_rights_for_idempotent_producers_are_printed_for_old_brokers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """By the names of Kafka's protocol; newer ones include them in Write on a topic."""
    for words, roles in (((), set()), (("--kafka-before-2.8",), {"bridge", "replay"})):
        assert main(["topics", "acls", "--format", "json", *words]) == 0
        acls = [acl for acl in json.loads(capsys.readouterr().out) if acl["resource_type"] == "CLUSTER"]
        assert {acl["role"] for acl in acls} == roles
        expected = ("IDEMPOTENT_WRITE", "kafka-cluster", "LITERAL")
        assert {(acl["operation"], acl["resource_name"], acl["pattern_type"]) for acl in acls} <= {expected}

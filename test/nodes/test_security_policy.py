"""The SROS 2 policy against what the running nodes really publish, hear and serve: neither more nor less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from peer import Peer, policy_process, process, running_peer, wait_until
from rclpy.action import get_action_server_names_and_types_by_node
from test_libero_bridge import FAKE_SCENE, parameters

POLICY = Path(__file__).parents[2] / "config" / "security" / "policy.xml"
CONDITIONAL = {
    "/image/compressed": "image_transport: compressed",
    "/wrist_image": "wrist: true",
    "/clock": "simulated time",
}
"""Topics that a node has under another configuration than the test's."""


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


def allowed(node: str, kind: str, rule: str) -> set[str]:
    """Full names that the policy allows a node: kind topics, services or actions, and the rule's attribute."""
    profile = ElementTree.parse(POLICY).find(f"./enclaves/enclave[@path='/{node}']/profiles/profile")
    assert profile is not None and profile.get("node") == node and profile.get("ns") == "/"
    texts = [str(item.text) for part in profile.findall(f"{kind}[@{rule}='ALLOW']") for item in part]
    return {f"/{node}/{text[2:]}" if text.startswith("~/") else f"/{text.lstrip('/')}" for text in texts}


def names(entries: list[tuple[str, list[str]]]) -> set[str]:
    """Topics and services of the graph, without those that an action is made of."""
    return {name for name, _ in entries if "/_action/" not in name}


def check(peer: Peer, node: str) -> None:
    """Once this process has discovered all that belongs to the node: its services may be found before its topics."""

    def published() -> set[str]:
        return names(peer.get_publisher_names_and_types_by_node(node, "/"))

    def heard() -> set[str]:
        return names(peer.get_subscriber_names_and_types_by_node(node, "/"))

    def missing() -> str:
        return f"{sorted(allowed(node, 'topics', 'publish') - published())} of {peer.get_node_names()}"

    wait_until(lambda: allowed(node, "topics", "publish") <= published() | CONDITIONAL.keys(), missing)
    # Every node listens to parameter events where simulated time may be switched on.
    silent = CONDITIONAL.keys() | {"/parameter_events"}
    wait_until(lambda: allowed(node, "topics", "subscribe") <= heard() | silent)
    wait_until(lambda: names(peer.get_service_names_and_types_by_node(node, "/")) == allowed(node, "services", "reply"))
    wait_until(
        lambda: names(get_action_server_names_and_types_by_node(peer, node, "/")) == allowed(node, "actions", "execute")
    )
    assert published() <= allowed(node, "topics", "publish")
    assert heard() <= allowed(node, "topics", "subscribe")


def test_the_policy_node_is_allowed_what_it_uses(peer: Peer) -> None:
    with policy_process():
        peer.wait_for_listener()
        peer.wait_until_answered()
        check(peer, "specvla")


def test_the_bridge_is_allowed_what_it_uses(peer: Peer) -> None:
    with process(FAKE_SCENE.replace("SUCCESS", "0"), *parameters(max_steps=10000)):
        wait_until(lambda: "libero_bridge" in peer.get_node_names())
        wait_until(lambda: bool(peer.get_service_names_and_types_by_node("libero_bridge", "/")))
        wait_until(lambda: peer.count_publishers("episode_status") == 1)
        check(peer, "libero_bridge")

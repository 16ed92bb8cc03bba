from __future__ import annotations

from pathlib import Path

import pytest

from specvla_ros.evaluation.draft_names import draft_names, short_draft


@pytest.mark.parametrize(
    ("drafts", "names"),
    [
        ({"hold": "a", "hold+linear": "a", "runs/draft": "b"}, ["hold", "hold+linear", "draft"]),
        ({"runs/first/draft": "a", "runs/second/draft": "b"}, ["first/draft", "second/draft"]),
        ({"hold+first/draft": "a", "hold+second/draft": "b"}, ["hold+first/draft", "hold+second/draft"]),
        ({"a/x/draft": "a", "b/x/draft": "b", "b/y/draft": "c"}, ["a/x/draft", "b/x/draft", "y/draft"]),
        ({"runs/draft": "a", "/home/me/runs/draft": "a"}, ["draft", "draft"]),
        ({"runs/draft": "a", "runs/draft/": "b"}, ["runs/draft", "runs/draft/"]),
        ({"mine/hold": "a", "hold": "b"}, ["mine/hold", "hold"]),
    ],
)
def test_a_name_is_short_and_no_other_drafts(drafts: dict[str, str], names: list[str]) -> None:
    several = [{"draft": draft, "fingerprint": mark} for draft, mark in drafts.items()]
    assert draft_names(several) == names


def test_a_plus_in_a_directorys_name_joins_nothing(tmp_path: Path) -> None:
    draft = tmp_path / "openvla-7b+libero+lora-r32" / "draft"
    draft.mkdir(parents=True)
    assert short_draft(f"hold+{draft}") == "hold+draft"
    assert short_draft(str(draft), parts=2) == "openvla-7b+libero+lora-r32/draft"

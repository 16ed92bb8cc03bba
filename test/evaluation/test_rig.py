from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig
from specvla_ros.runtime import OpenVLAPolicy
from specvla_ros.shipped import shipped_checkpoint
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.vla.model import OpenVLA

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)


def test_policies_loaded_together_share_weights_and_drafts_and_neither_history_nor_thresholds(tmp_path: Path) -> None:
    conditions = [("none", 0), ("hold", 0), ("hold", (255,) * 7)]
    several = [EvaluationOptions("libero_spatial", tmp_path, draft=draft, threshold=r) for draft, r in conditions]
    policies = Rig().load_policies(several)
    plain_decoder, *others = [policy.decoder for policy in policies if isinstance(policy, OpenVLAPolicy)]
    assert others == [others[0]] * 2 and others[0] is not plain_decoder, "one for each draft: it has a cache and graphs"
    assert others[0].target is plain_decoder.target
    in_turn = [[policy.act(image, "pick up the bowl") for policy in policies] for image in IMAGES]
    plain, strict, relaxed = zip(*in_turn, strict=True)
    assert [action.tokens for action in strict] == [action.tokens for action in plain]
    assert all(action.stats.forwards == 7 for action in plain)
    assert [action.stats.accepted for action in relaxed[1:]] == [(5,), (5,)], "everything is near enough"


def model_of(rig: Rig, settings: EvaluationOptions) -> tuple[SpeculativeDecoder, OpenVLA]:
    (policy,) = rig.load_policies([settings])
    assert isinstance(policy, OpenVLAPolicy)
    return policy.decoder, policy.decoder.target


def test_the_next_evaluation_goes_on_with_the_same_model_until_it_needs_another(tmp_path: Path) -> None:
    rig, settings = Rig(), EvaluationOptions("libero_spatial", tmp_path, draft="hold")
    decoder, target = model_of(rig, settings)
    assert model_of(rig, replace(settings, threshold=9, seed=1)) == (decoder, target)
    assert model_of(rig, replace(settings, draft="linear"))[1] is target
    assert pickle.loads(pickle.dumps(rig))._kept is None, "a worker's process has no use for it"
    assert model_of(rig, replace(settings, dtype="bfloat16"))[1] is not target


def test_a_draft_that_was_trained_again_meanwhile_is_loaded_again(tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    shutil.copytree(shipped_checkpoint() / "draft", draft)
    rig, settings = Rig(), EvaluationOptions("libero_spatial", tmp_path, draft=str(draft))
    decoder, _ = model_of(rig, settings)
    assert model_of(rig, settings)[0] is decoder
    (weights,) = draft.glob("*.safetensors")
    save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights)
    assert model_of(rig, settings)[0] is not decoder


def test_a_checkpoint_sees_liberos_pictures_as_openvlas_evaluation_shows_them_whatever_its_data_is_called(
    tmp_path: Path,
) -> None:
    """Of a fine-tune on somebody's own recordings of LIBERO."""
    for file in shipped_checkpoint().iterdir():
        (tmp_path / file.name).symlink_to(file)
    (numbers,) = json.loads((tmp_path / "config.json").read_text())["norm_stats"].values()
    (tmp_path / "dataset_statistics.json").write_text(json.dumps({"my_recordings": numbers}))
    settings = EvaluationOptions("libero_spatial", tmp_path / "runs", checkpoint=str(tmp_path))
    policy = Rig().load_policy(settings)
    assert isinstance(policy, OpenVLAPolicy) and policy.preparation == "libero"

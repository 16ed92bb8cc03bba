"""Recorded bags as evidence: record an episode, replay it to the policy node, compare conditions on its frames."""

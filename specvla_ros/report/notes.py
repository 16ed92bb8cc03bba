"""What the page says below its tables and drawings."""

from __future__ import annotations

RESULTS = (
    "Success with Wilson's 95 % interval. Rows can have different numbers of initial states: what plain greedy "
    "decoding solved of the very same ones stands beside. Lost: episodes that only plain greedy decoding solved; won: "
    "that only this row solved; p: how often chance alone makes as much of a difference (exact McNemar test, "
    "two-sided), corrected by Holm's procedure for all the rows of the table that are compared. Steps: mean of an "
    "episode, failed ones included. Tokens per forward is the paper's accept length: seven tokens over the target "
    "forwards of an action, the prefill included; rounds are the others. Off by: mean distance of a token from the "
    "target's own answer. Milliseconds: an action in the decoder, on the frames of the speed-up, where every row and "
    "plain greedy decoding take turns; absent where that was not measured. Of several measurements each has its own "
    "plain greedy decoding: a speed-up is against that one, and milliseconds of two do not compare."
)
SEEDING = (
    "Every episode begins with the same --seed: cabinet and stove, which an initial state does not hold, stand where "
    "it puts them. OpenVLA's evaluation seeds a task's scene once and goes on drawing, so that they stand elsewhere in "
    "each of its episodes."
)
PUBLISHED = (
    "In italics: another model, OpenVLA-7B, on another machine ({source}). Forwards in parentheses are seven over the "
    "published length. The published threshold relaxes the gripper too, ours keeps it exact."
)
PHASES = (
    "Prepare: the picture is cropped, scaled and normalised. Vision: its encoders. Prefill: the language model over "
    "picture and instruction, which brings the first token. Draft: what proposes tokens. Verify: the target's forwards "
    "over them, all rounds together; without a draft its six further steps. The median over the episodes of an "
    "episode's median and 95th percentile, with whatever else the machine did; medians of phases do not add up to the "
    "median of the total."
)
DISTANCES = "x is always 0, because it comes with the prefill, and so is the gripper, which is always the target's own."
SWEEP = (
    "Bands and bars: 95 % intervals. The threshold holds for the six motion dimensions; the gripper is exact. Dotted, "
    "where a draft was tried on fewer initial states: plain greedy decoding on those of each point."
)
ROUNDS = "Share of verification rounds by how many drafts they accepted; each brings one token of the target's more."
POSITIONS = (
    "Share of actions whose token there was an accepted draft; the sum over a row is the drafts accepted in an action. "
    "x comes with the prefill, and the gripper is always the target's own."
)
LATENCIES = "Bands and bars: 95 % intervals; points can have different numbers of initial states. At 0 ms: lockstep."
REAL_TIME = (
    "Simulated real time: the scene goes on in steps of 50 ms while the policy thinks. A command is in force from the "
    "first step that begins when it is there, until the next one is, or until it expires; how long it holds counts "
    "from its frame. An episode's first command costs no time: the scene begins with it. A latency of up to 50 ms is "
    "exactly one step, so that conditions whose commands all take less cannot differ by their speed. Mean ms: latency "
    "of a command, and where it is the decoder's own, the median of the episodes' medians. Greedy, same starts: plain "
    "greedy decoding in lockstep, and what was lost and won against it; p is corrected for the rows of this table."
)
HELD = (
    "Held: share of steps whose command was computed from an older frame than that of the step before, which is the "
    "newest that a command can be from when it takes any time. At rest, which counts as held too: steps at which the "
    "frame of the newest command that was there lay further back than commands hold and one step more; the arm then "
    "stands still and the gripper stays as it was. Emulated: the latency is a stated delay model, not a measured time."
)

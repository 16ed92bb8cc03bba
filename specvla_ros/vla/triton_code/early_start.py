"""Programmatic dependent launch: a kernel's programs are started while the kernel before still runs."""

from __future__ import annotations

import triton
import triton.language as tl

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
except ImportError:  # before Triton 3.4
    gdc_launch_dependents = gdc_wait = None

POSSIBLE = gdc_wait is not None and not triton.__version__.startswith("3.4.")
"""Whether Triton can do it; in 3.4 the two functions do not compile."""


@triton.jit
def meet_the_kernel_before(EARLY: tl.constexpr):
    """What other kernels write may be read, and anything be written, only after this.

    Where EARLY, the program was started while the kernel before still ran (programmatic dependent launch), and the
    kernel behind may start likewise. The time in between is for what no kernel of this pass writes: weights, and what
    earlier passes left.
    """
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()

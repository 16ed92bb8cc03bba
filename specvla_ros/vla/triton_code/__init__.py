"""The kernels of `specvla_ros.vla.kernels` in Triton's language, which knows no types of arguments.

Rows lie behind each other in memory. Products and attention are started with a program for each block of their results,
all others with one for each row.
"""

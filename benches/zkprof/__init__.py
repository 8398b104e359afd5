# SPDX-License-Identifier: MIT OR Apache-2.0
"""Is what zkprof says true?

Programs whose use of CPU time is known run on the system allocator, and zkprof measures them
from outside. Meanwhile copies of the same program do the same work on allocators that keep
their pages. So three things can be compared with zkprof's report: the time that the program
itself counted in each class, the CPU and wall time that keeping pages really saved, and the
answer of zkprof's less privileged ways of measuring. See README.md for the table.
"""

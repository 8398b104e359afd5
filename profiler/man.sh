#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Writes zkprof.1 anew from the argument parser.  Needs zkprof and
# argparse-manpage installed; a test says when it is due.
set -eu
cd "$(dirname "$0")"
COLUMNS=72 argparse-manpage --module zkprof.cli --function parser --prog zkprof \
    --project-name zk-nalloc --manual-title "User Commands" \
    --format single-commands-section \
    --description "say whether a prover is bound by memory allocation" |
    sed -e '1s/"20[^"]*"/""/' \
        -e 's/^\(PID .*\) zkprof \(run .*\) zkprof \(COMMAND .*\)$/\1\n.br\n.B zkprof\n\2\n.br\n.B zkprof\n\3/' \
        -e 's/^\.SH COMMENTS$/.SH VERDICTS AND EXIT STATUS/' \
        -e '/^\.SH$/{N;s/\n/ /}' \
        -e '1i .\\" SPDX-License-Identifier: MIT OR Apache-2.0' > zkprof.1

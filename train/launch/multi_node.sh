#!/bin/sh
# Trains on several machines. Start it on each of them, with the same words:
#
#   NODES=1:4 RENDEZVOUS=node-1:29400 train/launch/multi_node.sh RECIPE --out s3://bucket/run
#
# NODES       how many machines, or the fewest and the most; with 1:4 the run goes on when machines
#             are lost, and takes in those that come (back)
# RENDEZVOUS  HOST:PORT of the one machine that must stay; all reach it
# PROCESSES   on this machine; by default one for each GPU
#
# Ctrl-C on any of them stops the run on all, after a step that is saved.
set -eu

: "${NODES:?how many machines, such as 4, or 1:4}"
: "${RENDEZVOUS:?HOST:PORT of the machine where all meet}"
exec wit train "$@" --nodes "$NODES" --rendezvous "$RENDEZVOUS" --processes "${PROCESSES:-0}"

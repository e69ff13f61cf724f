#!/bin/sh
# join_cgroup.sh CGROUP_DIR PROGRAM [ARGUMENT]...: becomes PROGRAM, inside the control group.
set -eu
echo $$ >"$1/cgroup.procs"
shift
exec "$@"

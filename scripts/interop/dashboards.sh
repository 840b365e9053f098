#!/bin/sh
# dashboards.sh [--write]: the chart's copies of dashboards/*.json and dashboards/rules/*.yaml are those files.
#
# A chart can hold only what is inside it, and a link out of it is not packaged everywhere.
set -eu
cd "$(dirname "$0")/../.."
to=helm/trustfleet/files
faults=0

# each FROM_FOLDER SUFFIX TO_FOLDER
each() {
    if [ "$write" = yes ]; then
        rm -rf "${3:?}"
    fi
    for file in "$1"/*."$2"; do
        [ -e "$file" ] || continue
        if [ "$write" = yes ]; then
            mkdir -p "$3"
            cp "$file" "$3/"
        elif ! cmp -s "$file" "$3/${file##*/}"; then
            echo "$3/${file##*/} is not $file: scripts/interop/dashboards.sh --write"
            faults=1
        fi
    done
    for file in "$3"/*; do
        if [ -e "$file" ] && [ ! -e "$1/${file##*/}" ]; then
            echo "$file has no original in $1: scripts/interop/dashboards.sh --write"
            faults=1
        fi
    done
}

write=no
[ "${1:-}" != --write ] || write=yes
each dashboards json "$to/dashboards"
each dashboards/rules yaml "$to/rules"
if [ "$faults" = 0 ]; then
    echo "$(find "$to" -type f ! -name .gitkeep 2>/dev/null | wc -l) dashboards and rule files in the chart, all as in dashboards/"
fi
exit "$faults"

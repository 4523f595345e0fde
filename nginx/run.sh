#!/bin/sh
# nginx in a container: waits for the names in servers.conf, then runs nginx in the foreground, and reloads it when a name
# leads to another address, which it does when a control plane's container was made anew. (nginx looks names up when it
# starts or reloads; `resolve` for upstream servers came with 1.27.3.)
set -eu
folder=$(cd "$(dirname "$0")" && pwd)
EVERY_S=2

# The names, without those that are addresses already.
names=$(sed -n 's/^[[:space:]]*server[[:space:]]\{1,\}\([A-Za-z][A-Za-z0-9._-]*\)[:; ].*/\1/p' "$folder/servers.conf")

# All addresses of all names; fails when a name has none.
addresses() {
    for name in $names; do
        getent hosts "$name" || return 1
    done
}

until seen=$(addresses); do
    echo "nginx waits until these names are known: $names" >&2
    sleep "$EVERY_S"
done

follow() {
    while sleep "$EVERY_S" && kill -0 "$$" 2>/dev/null; do # for as long as nginx is there, which took this pid
        found=$(addresses) || continue # stopped: its name comes back with it
        if [ "$found" != "$seen" ] && nginx -e stderr -c "$folder/nginx.conf" -s reload; then
            echo "nginx reloads: $names moved" >&2
            seen=$found
        fi
    done
}

[ -z "$names" ] || follow &
exec nginx -e stderr -c "$folder/nginx.conf" -g 'daemon off;'

#!/bin/sh
# The real smolvm, which keeps what its state was after `machine create` and before `machine start`, and breaks it
# between them where it is told to.
real=@REAL@
spy=@SPY@
state=$HOME/.local/share/smolvm/server

case "${1-} ${2-}" in
'machine create')
    case " $* " in *' --help '*) exec "$real" "$@" ;; esac
    "$real" "$@" || exit
    cp -r "$state" "$spy/created"
    case $(cat "$spy/fault") in
    read-only) chmod 444 "$state/smolvm.db" ;;
    locked)
        : >"$spy/is-created"
        while [ ! -e "$spy/is-locked" ]; do sleep 0.1; done
        ;;
    esac
    exit 0
    ;;
'machine start')
    case " $* " in *' --help '*) ;; *) rm -rf "$spy/started" && cp -r "$state" "$spy/started" ;; esac
    ;;
'machine delete')
    chmod 644 "$state"/smolvm.db*
    : >"$spy/is-over"
    ;;
esac
exec "$real" "$@"

#!/bin/sh
# A worker in POSIX shell: proof that a program needs no SDK, not a recommendation. It provides sh::uptime and finds
# the two fields it needs by string search, which is enough because ids hold no escapes.

id_of() {
  case $1 in *"\"$2\":\""*) ;; *) return ;; esac
  rest=${1#*"\"$2\":\""}
  printf '%s' "${rest%%\"*}"
}

answer() {
  seconds=$(cut -d. -f1 /proc/uptime 2>/dev/null || echo 0)
  printf '{"type":"invocationresult","invocation_id":"%s","function_id":"sh::uptime","result":{"seconds":%s}}\n' \
    "$1" "$seconds"
}

printf '{"type":"invokefunction","function_id":"engine::workers::register",'
printf '"data":{"runtime":"sh","name":"%s","pid":%s},"action":{"type":"void"}}\n' "${III_WORKER_NAME:-shell}" "$$"
printf '{"type":"registerfunction","id":"sh::uptime","description":"Seconds since this machine started."}\n'
printf '{"type":"ready"}\n'

while IFS= read -r line; do
  case $(id_of "$line" type) in
    invokefunction) invocation_id=$(id_of "$line" invocation_id)
                    [ -z "$invocation_id" ] || answer "$invocation_id" ;;
    ping) printf '{"type":"pong"}\n' ;;
    stop) exit 0 ;;
  esac
done

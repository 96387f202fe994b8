#!/usr/bin/env bash
# check-symbols.sh EXECUTOR LIBRARY [CUDA-LIBRARY]
#	Look into both products for what must not be there.
#
# The executor uses nothing of PostgreSQL.  The library, which is loaded into
# the postmaster before it forks, links no CUDA, no OpenMP and nothing that
# starts threads, and exports only what PostgreSQL looks up by name.  The
# executor links no CUDA either: it opens the backend's library, which shows
# two functions.
#
# tools/check-symbols.sh
set -euo pipefail

executor=${1:?path of llm_executor}
library=${2:?path of llm_ext.so}
cuda_library=${3:-}
failed=0

# complain WHAT LINES: complain when there are any
complain() {
	[ -n "$2" ] || return 0
	printf '%s:\n%s\n' "$1" "$2"
	failed=1
}

undefined=$(nm -u "$executor" | awk '{print $NF}')
complain "$executor uses symbols of PostgreSQL" "$(grep -E \
	'^(palloc|pfree|repalloc|errstart|errfinish|elog|MemoryContext|SPI_|LWLock|pg_|PG_|ProcessInterrupts|SetLatch|WaitLatch)' \
	<<<"$undefined" || true)"
complain "$executor links PostgreSQL" \
	"$(ldd "$executor" | grep -E 'libpq|libpgcommon|postgres' || true)"

complain "$executor links CUDA" \
	"$(ldd "$executor" | grep -E 'libcuda|libcublas|libnccl' || true)"

if [ -n "$cuda_library" ]; then
	complain "$cuda_library exports more than its two functions" \
		"$(nm -D --defined-only "$cuda_library" | awk '{print $NF}' |
			grep -vxE 'llm_compute_cuda_(open|device)' || true)"
fi

complain "$library links what may not be loaded into the postmaster" \
	"$(ldd "$library" | grep -E 'libcuda|libcublas|libnccl|libnvidia|libgomp|libomp|libiomp|libtbb' || true)"
complain "$library starts threads" "$(nm -D -u "$library" | awk '{print $NF}' |
	grep -E '^(pthread_create|thrd_create|GOMP_|omp_|__kmpc)' || true)"

exported=$(nm -D --defined-only "$library" | awk '{print $NF}')
functions=$(sed -n 's/^pg_finfo_//p' <<<"$exported")
allowed=$(printf '%s\n' "$functions" _PG_init Pg_magic_func llm_scheduler_main \
	llm_finetune_worker_main)
complain "$library exports more than PostgreSQL looks up" \
	"$(grep -v '^pg_finfo_' <<<"$exported" | grep -vxF "$allowed" || true)"
for name in _PG_init Pg_magic_func llm_scheduler_main \
	llm_finetune_worker_main $functions; do
	grep -qxF "$name" <<<"$exported" || complain "$library does not export" "$name"
done

[ "$failed" = 0 ]
echo "both products hold only what they may"
